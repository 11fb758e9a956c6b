"""No command writes over what is not its own: pages of other studies and recipes, files of the user, cards, references, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compresslab.cli.reference import _target
from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.records import StudyNote, StudyRecord
from compresslab.report.html import replace
from compresslab.report.index import write_index
from compresslab.report.overwriting import GENERATOR_TAG, SVG_MARK, check_file, check_page
from compresslab.report.words import record_json
from compresslab.store.store import Store
from compresslab.studies import page_folder
from compresslab.studies.imported.mark import EVALUATED
from compresslab.studies.page_folder import check_page_folder
from report import studies

TEXT = """study: s
base: {model: offline:smollm2-135m-instruct}
compute: float32
variants:
  depth: [{prune: {method: depth, keep: 24}}]
evaluate: {tasks: [arc_easy], items: 10}
"""


def recipe(path: Path, text: str = TEXT) -> Plan:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return prepare(path)


def page(folder: Path, plan: Plan, store: Store | None = None) -> Path:
    """A page as a run of the plan leaves it, and its note in the store."""
    made = studies.study([], study=plan.recipe.study, base=plan.recipe.base.model, question=plan.recipe.question)
    provenance = made.provenance.model_copy(update={"recipe_path": plan.file.path.name, "recipe_sha256": plan.file.sha256})
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "study.json", record_json(made.model_copy(update={"provenance": provenance})))
    replace(folder / "index.html", GENERATOR_TAG)
    if store is not None:
        store.remember(plan.recipe.study, StudyNote(recipe=str(plan.file.path), finished="", variants={}))
    return folder


EDITED = TEXT.replace("keep: 24", "keep: 20")


def test_two_recipes_of_one_name_do_not_replace_each_others_page(tmp_path: Path):
    folder = page(tmp_path / "reports/s", recipe(tmp_path / "one.yaml"))
    with pytest.raises(BadInput, match=r"two\.yaml and .*one\.yaml both call their study 's'.*; rename the `study:`.*--reports"):
        check_page_folder(folder, recipe(tmp_path / "two.yaml", EDITED), None)


def test_two_recipes_of_one_file_name_in_two_folders_are_told_apart_by_the_store(tmp_path: Path):
    store = Store(tmp_path / "store")
    folder = page(tmp_path / "reports/s", recipe(tmp_path / "a/r.yaml"), store)
    with pytest.raises(BadInput, match="both call their study 's'"):
        check_page_folder(folder, recipe(tmp_path / "b/r.yaml", TEXT.replace("base:", "question: Another?\nbase:")), store)


@pytest.mark.parametrize(
    "how",
    [
        "again",
        "edited",
        "moved",
        "renamed",
        "renamed and edited",
        "copied",
        "copied and edited",
        "another study in the old file",
        "damaged",
    ],
)
def test_a_recipe_goes_on_with_its_page(tmp_path: Path, how: str):
    store, old = Store(tmp_path / "store"), tmp_path / "a/r.yaml"
    folder = page(tmp_path / "reports/s", recipe(old), store)
    new = old
    if how == "edited":
        recipe(old, EDITED)
    elif how in ("moved", "renamed", "renamed and edited"):
        new = tmp_path / ("b/r.yaml" if how == "moved" else "a/q.yaml")
        old.unlink()
        recipe(new, EDITED if "edited" in how else TEXT)
    elif how == "copied":
        recipe(new := tmp_path / "b/q.yaml")
    elif how == "copied and edited":
        recipe(new := tmp_path / "b/r.yaml", EDITED)
    elif how == "another study in the old file":
        recipe(old, TEXT.replace("study: s", "study: t"))
        recipe(new := tmp_path / "a/q.yaml", EDITED)
    elif how == "damaged":
        (folder / "study.json").write_text("{")
    check_page_folder(folder, prepare(new), store)


def test_a_run_does_not_replace_an_imported_page(tmp_path: Path):
    plan, folder = recipe(tmp_path / "s/recipe.yaml"), tmp_path / "reports/s"
    page(folder, plan)
    base = studies.base()
    imported = base.model_copy(update={"steps": [base.steps[0].model_copy(update={"details": {EVALUATED: "results_1.json"}})]})
    record = StudyRecord.model_validate_json((folder / "study.json").read_text())
    replace(folder / "study.json", record_json(record.model_copy(update={"variants": [imported]})))
    for now in (plan, recipe(tmp_path / "s/recipe.yaml", EDITED)):
        with pytest.raises(BadInput, match=r"a page that was imported from lm-eval's files, and that of .*recipe\.yaml would replace"):
            check_page_folder(folder, now, None)
    check_page_folder(tmp_path / "other/s", plan, None)


def test_two_recipes_of_one_file_name_are_told_apart_without_a_note_in_the_store(tmp_path: Path):
    first, folder = recipe(tmp_path / "exp1/recipe.yaml"), tmp_path / "reports/s"
    check_page_folder(folder, first, None)
    page(folder, first)
    other = recipe(tmp_path / "exp2/recipe.yaml", EDITED)
    with pytest.raises(BadInput, match=r"exp2/recipe\.yaml and .*exp1/recipe\.yaml both call their study 's'"):
        check_page_folder(folder, other, None)
    check_page_folder(folder, recipe(tmp_path / "exp1/recipe.yaml", EDITED), None)
    (tmp_path / "exp1/recipe.yaml").rename(tmp_path / "exp1/moved.yaml")
    check_page_folder(folder, recipe(tmp_path / "exp1/moved.yaml", EDITED + "# more\n"), None)


def test_copies_of_equal_text_are_two_recipes_since_their_paths_may_name_two_models(tmp_path: Path):
    first, folder = recipe(tmp_path / "exp1/recipe.yaml"), tmp_path / "reports/s"
    check_page_folder(folder, first, None)
    page(folder, first)
    with pytest.raises(BadInput, match=r"exp2/recipe\.yaml and .*exp1/recipe\.yaml both call their study 's'"):
        check_page_folder(folder, recipe(tmp_path / "exp2/recipe.yaml"), None)


def test_a_copy_of_a_project_that_shares_its_store_goes_on_with_its_pages(tmp_path: Path):
    store = Store(tmp_path / "store")
    for name in ("p2", "p1"):
        plan = recipe(tmp_path / name / "r.yaml")
        check_page_folder(tmp_path / name / "reports/s", plan, store)
        page(tmp_path / name / "reports/s", plan, store)
    edited = recipe(tmp_path / "p2/r.yaml", EDITED.replace("base:", "question: Another?\nbase:"))
    check_page_folder(tmp_path / "p2/reports/s", edited, store)
    (tmp_path / "p1").rename(tmp_path / "p3")
    check_page_folder(tmp_path / "p3/reports/s", recipe(tmp_path / "p3/r.yaml", EDITED), store)


def test_a_file_of_the_user_named_like_a_record_stays(tmp_path: Path):
    (tmp_path / "study.json").write_text('{"mine": 1}')
    with pytest.raises(BadInput, match=r"study\.json is there already and is no record of a study .*; name another folder"):
        check_page(tmp_path, "s")
    (tmp_path / "index.html").write_text(GENERATOR_TAG)
    assert check_page(tmp_path, "s") is None


def test_a_page_that_is_not_ours_stays(tmp_path: Path):
    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(BadInput, match=r"index\.html is there already, and compresslab did not write it; name another folder"):
        check_page(tmp_path, "s")
    write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>mine</h1>"


def test_the_page_of_another_study_stays(tmp_path: Path):
    page(tmp_path / "s", recipe(tmp_path / "r.yaml"))
    with pytest.raises(BadInput, match=r"has the page of the study 's', not of 's \+ t'"):
        check_page(tmp_path / "s", "s + t")
    record = check_page(tmp_path / "s", "s")
    assert isinstance(record, StudyRecord)


def test_only_our_pictures_are_drawn_again(tmp_path: Path):
    picture = tmp_path / "p.svg"
    check_file(picture, SVG_MARK, "")
    picture.write_text("<svg>" + " " * 100_000 + SVG_MARK)
    check_file(picture, SVG_MARK, "")
    picture.write_text("<svg></svg>")
    with pytest.raises(BadInput, match=r"p\.svg is there already, and compresslab did not write it; name another"):
        check_file(picture, SVG_MARK, "name another")
    picture.unlink()
    picture.mkdir()
    with pytest.raises(BadInput, match="a folder, not a regular file"):
        check_file(picture, SVG_MARK, "name another")


def test_a_reference_replaces_only_an_earlier_fit_of_itself(tmp_path: Path):
    from importlib import resources

    path = tmp_path / "olmo-ladder.json"
    assert _target(path, "olmo-ladder") == path
    path.write_text((resources.files("compresslab") / "data" / "references" / "olmo-ladder.json").read_text())
    assert _target(path, "olmo-ladder") == path
    with pytest.raises(BadInput, match="has the reference 'olmo-ladder', not 'mine'"):
        _target(path, "mine")
    path.write_text(json.dumps({"my": "settings"}))
    with pytest.raises(BadInput, match="is there already and is no reference"):
        _target(path, "olmo-ladder")


def test_a_note_that_names_no_possible_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / ".recipe").write_text("x" * 5000)
    assert page_folder._noted(tmp_path) is None
