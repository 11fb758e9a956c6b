"""What a page covers: the items it rests on, a run with other settings than the recipe's, and parts that have not run yet."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.records import Failure, StudyRecord
from compresslab.report import html
from compresslab.report.extent.altered import altered, altered_recipe, page_name
from compresslab.report.extent.basis import basis
from compresslab.report.figures import Figures
from compresslab.report.html import render
from compresslab.report.merge import merged
from compresslab.studies.page_folder import folder_of_plan, folder_of_record
from compresslab.studies.run_study import write_page

from . import studies


@pytest.fixture(autouse=True)
def _no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of these tests have no charts, because drawing them is what takes time."""
    monkeypatch.setattr(html, "figures", lambda _: Figures())


TEXT = """study: s
base: {model: offline:smollm2-135m-instruct}
compute: float32
variants:
  depth: [{prune: {method: depth, keep: 24}}]
  nf4: [{quantize: {method: bnb-nf4}}]
evaluate: {tasks: [arc_easy], items: 200}
"""


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def run_with(*settings: str, only: tuple[str, ...] = (), text: str = TEXT) -> StudyRecord:
    """The record of a run of a recipe with changes of the command line."""
    made = studies.quickstart(study="s", recipe=Changes(settings, only).described() + text)
    return made.model_copy(update={"provenance": made.provenance.model_copy(update={"recipe_sha256": sha(text)})})


@pytest.mark.parametrize(
    ("settings", "only", "sentence", "folder"),
    [
        ([], [], "", "s"),
        (["evaluate.items=60"], [], "items: 60 (recipe: 200)", "s~items-60"),
        (["evaluate.items=60"], ["nf4"], "items: 60 (recipe: 200), 1 of 2 variants left out", "s~items-60_only-nf4"),
        ([], ["nf4", "depth"], "", "s"),
        (["compute=bfloat16"], [], "compute: bfloat16 (recipe: float32)", "s~compute-bfloat16"),
        (["evaluate.items=200"], [], "", "s"),
    ],
)
def test_a_changed_run_says_how_and_has_a_folder_beside_the_recipes(settings: list[str], only: list[str], sentence: str, folder: str):
    record = run_with(*settings, only=tuple(only))
    assert altered(record).sentence == sentence
    assert folder_of_record(record, Path("reports")) == Path("reports") / folder
    page = render(record)
    assert ("Not the recipe as it is written:" in page) == bool(sentence)
    assert sentence in page


def test_a_plan_and_its_record_have_one_folder(tmp_path: Path):
    (tmp_path / "r.yaml").write_text(TEXT)
    plan = prepare(tmp_path / "r.yaml", Changes(("evaluate.items=60",), ("nf4",)))
    assert folder_of_plan(plan, tmp_path) == folder_of_record(run_with("evaluate.items=60", only=("nf4",)), tmp_path)


def test_runs_that_differ_have_different_folders():
    changes = ["evaluate.tasks=[arc_easy,piqa]", "evaluate.tasks=[arc_easy-piqa]", *(f"question={'x' * 70}{end}" for end in "ab")]
    names = {page_name("s", Changes((change,)).described() + TEXT, sha(TEXT)) for change in changes}
    assert len(names) == len(changes)
    assert all(len(name) < 90 for name in names)


def test_a_recipe_that_begins_like_a_change_is_no_changed_one():
    text = "# --set evaluate.items=60\n" + TEXT
    assert not altered_recipe(text, sha(text))
    assert altered_recipe("# --set evaluate.items=60\n" + text, sha(text)).sentence == "items: 60 (recipe: 200)"


def test_changes_of_a_recipe_that_no_longer_reads_are_told_as_they_were_given():
    text = "form: of another version\n"
    assert altered_recipe("# --set evaluate.items=60\n# --only a\n" + text, sha(text)).sentence == "items: 60, only a"


def test_a_changed_run_leaves_the_full_page_alone(tmp_path: Path):
    full = write_page(run_with(), tmp_path)
    before = full.read_bytes()
    quick = write_page(run_with("evaluate.items=60"), tmp_path)
    assert quick != full
    assert full.read_bytes() == before
    assert "items: 60 (recipe: 200)" in (tmp_path / "index.html").read_text()


def test_a_page_of_several_studies_says_which_was_changed():
    joint = merged([run_with().model_copy(update={"study": "a"}), run_with("evaluate.items=60").model_copy(update={"study": "b"})])
    assert "⚠ b is not its recipe as it is written: items: 60 (recipe: 200)." in joint.caveats
    assert not any(caveat.startswith("⚠ a ") for caveat in joint.caveats)


def test_the_answer_says_how_many_items_and_tasks_it_rests_on():
    page = render(studies.quickstart())
    assert "Rests on 800 items of 4 tasks (arc_easy 200, csqa 200, piqa 200, hellaswag 200)." in page


def test_variants_with_other_numbers_of_items_are_told_and_not_counted_as_the_first():
    whole = studies.quickstart()
    first, second, *rest = whole.variants
    [comparison] = [one for one in second.comparisons if one.relation == "parent"]
    fewer = [task.model_copy(update={"items": 50}) if task.task == "piqa" else task for task in comparison.tasks]
    second = second.model_copy(update={"comparisons": [comparison.model_copy(update={"tasks": fewer})]})
    said = basis(whole.model_copy(update={"variants": [first, second, *rest]}))
    expected = (
        "Rests on 650 to 800 items of 4 tasks (arc_easy 200, csqa 200, piqa 50 to 200, hellaswag 200); not every variant has as many."
    )
    assert said == expected


def test_published_scores_rest_on_no_items():
    whole = studies.quickstart()
    published = [
        one.model_copy(update={"scores": [score.model_copy(update={"engine": "published"}) for score in one.scores]})
        for one in whole.variants
    ]
    said = basis(whole.model_copy(update={"variants": published}))
    assert said == "Rests on published scores of 4 tasks (arc_easy, csqa, piqa, hellaswag); no item of them is known here."


def test_what_has_not_run_yet_is_pending_and_not_failed():
    whole = studies.quickstart()
    waiting = studies.failed("gptq").model_copy(update={"failures": [Failure(node="model:gptq", cause="has not run yet", pending=True)]})
    page = render(whole.model_copy(update={"variants": [*whole.variants, waiting]}))
    assert "1 part of this study has not run yet" in page
    assert "… pending" in page
    assert "✕ failed" not in page
    assert 'id="failures"' not in page
    both = render(whole.model_copy(update={"variants": [*whole.variants, waiting, studies.failed("awq")]}))
    assert "✕ failed" in both
    assert "… pending" in both
