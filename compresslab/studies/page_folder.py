"""The folder of a study's page, checked before anything runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.files import atomic_write
from compresslab.inputs import read_regular
from compresslab.plan.graph import Plan
from compresslab.recipe.load import RecipeFile, load_located
from compresslab.records import StudyRecord
from compresslab.report.extent.altered import page_name
from compresslab.report.overwriting import check_page
from compresslab.store.store import Store
from compresslab.studies.imported.mark import is_imported

# The least room, in bytes, that a folder of reports must have before a study runs. The page of a small study takes half a megabyte.
LEAST_ROOM = 2**19
# A note in the folder of a page: the path from there to the recipe that made it. It is no part of the page.
RECIPE = ".recipe"
LARGEST_PATH = 2**16  # bytes of a path


def folder_of_plan(plan: Plan, reports: Path) -> Path:
    """The folder of a plan's page: that of the study, or for a run with other settings or fewer variants than the recipe one beside it."""
    return reports / page_name(plan.recipe.study, plan.changes + plan.file.text, plan.file.sha256)


def folder_of_record(record: StudyRecord, reports: Path) -> Path:
    """The folder of a record's page, as `folder_of_plan` of the plan that it is from."""
    return reports / page_name(record.study, record.recipe, record.provenance.recipe_sha256)


def check_page_folder(folder: Path, plan: Plan, store: Store | None) -> None:
    """Refuse a folder into which the page of a plan cannot be written, or in which it would replace an imported or another recipe's page.

    Raises:
        BadInput: the folder cannot be made or written into, has an imported page, or that of another recipe that is still there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(LEAST_ROOM))
            file.flush()
    except OSError as error:
        raise BadInput(f"no page can be written into {folder} ({error.strerror}); name another folder of reports") from error
    record = check_page(folder, plan.recipe.study)
    if record is not None and is_imported(record):
        raise BadInput(
            f"{folder} has a page that was imported from lm-eval's files, and that of {plan.file.path} would replace it; name another "
            "folder with --reports, or copy the recipe and rename its `study:`"
        )
    if record is not None and (other := _other_recipe(folder, record, plan, store)) is not None:
        raise BadInput(
            f"{plan.file.path} and {other} both call their study {plan.recipe.study!r}, and {folder} has the page of {other}; "
            "rename the `study:` of one of them, or name another folder with --reports"
        )
    if plan.file.path.is_file() and not (folder / RECIPE).is_dir():
        atomic_write(folder / RECIPE, os.path.relpath(plan.file.path.resolve(), folder.resolve()) + "\n")


def _other_recipe(folder: Path, record: StudyRecord, plan: Plan, store: Store | None) -> Path | None:
    """The recipe that a page was made from, if it is another file than the plan's, is still there and still has a study of this name.

    A recipe that was moved, renamed or edited goes on with its page, and so does one that was copied with its pages, since the folder notes
    where its recipe lies from there. A copy of equal text is another recipe where the note tells so: a path in it may name another model
    from there. A folder without a note has the name of the recipe's file only, in its record.
    """
    if (noted := _noted(folder)) is not None:
        own = not plan.file.path.is_file() or (noted.is_file() and noted.samefile(plan.file.path))
        return noted if not own and _recipe_at(noted, plan.recipe.study) is not None else None
    made = record.provenance
    if made.recipe_sha256 == plan.file.sha256:
        return None
    for path in _candidates(made.recipe_path, plan, store):
        found = _recipe_at(path, plan.recipe.study)
        if found is not None and (made.recipe_path != plan.file.path.name or _is_another(found, record, plan)):
            return path
    return None


def _noted(folder: Path) -> Path | None:
    """The recipe that the folder of a page notes; `None` if there is no note, or none that can be looked at."""
    try:
        named = read_regular(folder / RECIPE, LARGEST_PATH).decode().rstrip("\n")
        noted = Path(os.path.normpath(folder.resolve() / named))
        noted.is_file()  # which fails for a name that is too long, or in a folder that is closed
        return noted if named else None
    except (OSError, ValueError):
        return None


def _is_another(found: RecipeFile, record: StudyRecord, plan: Plan) -> bool:
    """Whether a page is that of the recipe `found`, and not of an earlier state of the plan's, whose file has the same name."""
    other = (record.base, record.question) != (plan.recipe.base.model, plan.recipe.question)
    return other and found.sha256 == record.provenance.recipe_sha256


def _candidates(name: str, plan: Plan, store: Store | None) -> Iterator[Path]:
    """Files other than the plan's recipe that may be the recipe called `name`: the one in the store's note, and the one beside it."""
    note = store.notes().get(plan.recipe.study) if store is not None else None
    for path in ([Path(note.recipe)] if note is not None else []) + [plan.file.path.parent / name]:
        try:
            if path.name == name and path.is_file() and plan.file.path.is_file() and not path.samefile(plan.file.path):
                yield path
        except (OSError, ValueError):
            continue


def _recipe_at(path: Path, study: str) -> RecipeFile | None:
    """The recipe's file, if it is a recipe with a study of this name."""
    try:
        recipe, _, file = load_located(path)
    except BadInput:
        return None
    return file if recipe.study == study else None
