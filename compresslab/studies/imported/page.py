"""The page of an imported study, and what it may replace: the page of an earlier import of the same models and tasks."""

from __future__ import annotations

from pathlib import Path

from compresslab.errors import BadInput
from compresslab.files import atomic_write
from compresslab.inputs import reason
from compresslab.records import StudyRecord
from compresslab.report.overwriting import check_page
from compresslab.studies.imported.mark import is_imported
from compresslab.studies.run_study import write_page

RECIPE = "recipe.yaml"
ELSE = "name this study with --study, or another folder with --reports"


def write_imported(record: StudyRecord, reports: Path) -> Path:
    """Write the page of an imported study, and the recipe that it stands for beside it; returns the page's path.

    Raises:
        BadInput: the folder has the page of another study or a recipe that was changed, or cannot be written into.
    """
    folder = reports / record.study
    _check_replaced(record, folder)
    try:
        page = write_page(record, reports)
        atomic_write(folder / RECIPE, record.recipe)
    except OSError as error:
        raise BadInput(f"no page can be written into {folder} ({reason(error)}); name another folder with --reports") from error
    return page


def _check_replaced(record: StudyRecord, folder: Path) -> None:
    """Refuse to write over the page or the recipe of anything but an earlier import of the same models and tasks.

    Raises:
        BadInput: the folder has another page, or a recipe that is not the one of its page.
    """
    before, recipe = check_page(folder, record.study), folder / RECIPE
    if before is not None and not is_imported(before):
        raise BadInput(f"{folder} has the page of a study of the same name that was not imported; {ELSE}")
    if before is not None and _what(before) != _what(record):
        raise BadInput(f"{folder} has a page that was imported of {_in_words(before)}, and this one is of {_in_words(record)}; {ELSE}")
    try:
        found = recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else record.recipe
    except OSError as error:
        raise BadInput(f"{recipe} cannot be read ({reason(error)}); {ELSE}") from error
    if found not in (record.recipe, before.recipe if before else ""):
        raise BadInput(f"{recipe} is there already and was changed or is another recipe; rename it, {ELSE}")


def _what(record: StudyRecord) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
    """The models of a study, as name and lm-eval's name, and its tasks."""
    models = frozenset((variant.name, str(variant.steps[-1].config.get("model"))) for variant in record.variants)
    return models, frozenset(score.task for variant in record.variants for score in variant.scores)


def _in_words(record: StudyRecord) -> str:
    models = ", ".join(str(variant.steps[-1].config.get("model")) for variant in record.variants)
    return f"{models} on {', '.join(dict.fromkeys(score.task for variant in record.variants for score in variant.scores))}"
