"""Studies of published scores: from a recipe to a page, without a model and without torch."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.catalog import published_scores as tables
from compresslab.density import Reference
from compresslab.errors import BadInput
from compresslab.plan.prepare import prepare
from compresslab.recipe.places import RecipeError
from compresslab.report import html
from compresslab.report.answer import answer
from compresslab.studies import published

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "recipes" / "published"
RECIPES = sorted(FOLDER.glob("*.yaml"))
TABLE = "Llama3.2-card-base"


@functools.cache
def study(name):
    path = FOLDER / f"{name}.yaml"
    return published.assemble(prepare(path))


def comparison(name, variant):
    return next(one for one in study(name).variants if one.name == variant).comparisons[0]


@pytest.fixture
def written(tmp_path):
    """A recipe of Llama-3.1-8B and 3.2-1B in Meta's table, with parts put in other words."""

    def write(
        base="published:Llama-3.1-8B",
        v="[{adopt: {model: published:Llama-3.2-1B}}]",
        evaluate=f", table: {TABLE}",
        reference="qwen2.5",
        hardware="h20",
        more="",
    ):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            f"study: s\nbase: {{model: {base}}}\nvariants:\n  v: {v}\n"
            f"evaluate: {{source: published{evaluate}}}\ndensity: {{reference: {reference}, hardware: [{hardware}]}}\n{more}"
        )
        return path

    return write


def complaint(path):
    """The one complaint that the recipe gets, and its line."""
    with pytest.raises(RecipeError) as caught:
        prepare(path)
    first, *rest = str(caught.value).splitlines()
    assert first == "1 problem in the recipe:", caught.value
    (text,) = rest
    line = int(text.split(f"{path}:")[1].split(":")[0])
    return line, text.split(": ", 1)[1]


def test_there_are_recipes_for_the_quantized_and_the_distilled_pairs():
    assert len(RECIPES) >= 20
    assert {"gemma-2", "llama-3.1-8b", "minitron-4b"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_published_recipe_gives_a_study(path):
    record = study(path.stem)
    assert record.study == path.stem
    assert len(record.variants) >= 2
    base, *children = record.variants
    assert base.density.params is not None
    assert base.comparisons == []
    for variant in record.variants:
        (step, *_) = variant.steps
        assert (step.kind, step.method) == ("base", "published")
        assert variant.density.estimator == "score"
        assert variant.scores
        for score in variant.scores:
            assert (score.engine, score.bits_per_byte, score.metric != "") == ("published", None, True)
    for variant in children:
        (one,) = variant.comparisons
        assert one.ratio.low <= one.ratio.value <= one.ratio.high
        assert one.robustness
        assert one.seed == 0
        assert one.resamples == 2000
        bound = one.headline[0] is not None and one.headline[0].bound
        assert (one.items_needed is None) == (one.headline[1] != "inconclusive" or bool(bound))
    table = children[0].steps[-1].config["table"]
    assert any(table in note and tables.tables()[table][1] in note for note in record.notes)
    assert any("Nothing was run here" in note for note in record.notes)
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_a_plan_of_published_scores_has_nothing_to_run():
    plan = prepare(FOLDER / "gemma-2.yaml")
    assert plan.nodes == ()
    assert [(variant.name, variant.parent) for variant in plan.variants] == [("base", ""), ("gemma-2-9b", "base"), ("gemma-2-2b", "base")]


def test_nothing_heavy_is_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path; from compresslab.plan.prepare import prepare; from compresslab.studies import published; "
        f"path = Path({str(FOLDER / 'gemma-2.yaml')!r}); record = published.assemble(prepare(path)); "
        f"from compresslab.report.html import write; write(record, Path({str(tmp_path)!r})); "
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'scipy', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_six_pairs_of_the_paper():
    """Raised and lowered where the tables say so; where the interval holds 1, nothing is said."""
    said = {
        ("gemma-2", "gemma-2-9b"): "raised",
        ("gemma-2", "gemma-2-2b"): "inconclusive",
        ("llama-3.1-8b", "llama-3.2-3b"): "inconclusive",
        ("llama-3.1-8b", "llama-3.2-1b"): "lowered",
        ("minitron-4b", "minitron-4b-width"): "inconclusive",
        ("minitron-4b", "minitron-4b-depth"): "inconclusive",
    }
    found = {pair: comparison(*pair) for pair in said}
    assert {pair: one.verdict for pair, one in found.items()} == said
    for pair, one in found.items():
        assert (one.ratio.low <= 1 <= one.ratio.high) == (said[pair] == "inconclusive")
        # Llama-3.2-1B's MMLU lies further below Qwen2.5-0.5B than its left-out models test: only a bound is known, which decides.
        assert one.ratio.bound == ("<" if pair[1] == "llama-3.2-1b" else "")
        assert one.rests_on
    assert found["gemma-2", "gemma-2-9b"].ratio.value == pytest.approx(1.7, abs=0.3)
    assert found["llama-3.1-8b", "llama-3.2-1b"].ratio.high < 0.7


def test_quantizing_lowers_r_by_parameters_and_raises_it_by_bits():
    one = comparison("qwen2-7b-instruct-quantized", "gptq-int4")
    assert one.verdict == "lowered"
    assert one.verdict_bits == "raised"
    assert one.ratio_bits.value > 2 * one.ratio.value
    assert set(one.ratio_time) == {"a100-80g", "h100-sxm", "rtx-4090", "h20"}


def test_a_quantized_copy_shares_its_parents_peculiarities_and_a_distilled_child_does_not():
    copy, child = comparison("qwen2-7b-instruct-quantized", "gptq-int4").ratio, comparison("minitron-4b", "minitron-4b-width").ratio
    assert copy.high / copy.low < 1.4 < child.high / child.low


def test_models_of_different_tables_are_refused_without_the_flag(written):
    other = "[{adopt: {model: published:Gemma-2-9B, table: Gemma2-report-T13}}]"
    line, said = complaint(written(v=other))
    assert line == 5
    assert "different tables (Gemma2-report-T13 and Llama3.2-card-base)" in said
    assert "across_tables: true" in said
    line, said = complaint(written(v=other, evaluate=f", table: {TABLE}, across_tables: true"))
    assert line == 4
    assert said.startswith("variants.v[0].adopt.table: Gemma2-report-T13 and the base's Llama3.2-card-base have 0 models in common")


def test_tables_that_many_models_join_are_read_on_the_scale_of_the_base(written):
    other = "[{adopt: {model: published:Llama-3.1-Minitron-4B-Width, table: Minitron-practice-T1}}]"
    path = written(v=other, evaluate=", table: ObsScaling-base, across_tables: true")
    record = published.assemble(prepare(path))
    across = record.variants[1].comparisons[0]
    assert re.search(
        r"from different tables \(Minitron-practice-T1 and ObsScaling-base\): joined by the \d+ models that both have", across.reason
    )
    assert any(note.startswith("⚠ Parent and child stand in different tables") for note in record.notes)
    assert "different tables" in html.render(record)
    assert across.ratio.low < comparison("minitron-4b", "minitron-4b-width").ratio.value < across.ratio.high


@pytest.mark.parametrize(
    ("table", "tasks", "message"),
    [
        ("RH-Llama-3.1-8B-Inst", "[BBH]", "not read: BBH (3-shot, likelihood of the options, normalised so that a guess is 0)"),
        ("RH-Llama-3.1-8B-Inst", "[GSM8K]", "GSM8K has several settings; write one of GSM8K 4-shot (4-shot, exact match)"),
    ],
)
def test_a_score_in_another_setting_is_refused(written, table, tasks, message):
    child = "[{adopt: {model: published:Meta-Llama-3.1-8B-Instruct-quantized.w4a16}}]"
    path = written("published:Llama-3.1-8B-Instruct", child, f", table: {table}, tasks: {tasks}")
    with pytest.raises(RecipeError) as caught:
        prepare(path)
    assert message in str(caught.value)


def test_the_mixture_is_answered_for_by_active_parameters():
    found = answer(study("qwen3-30b-a3b"))
    assert found.headline.startswith("qwen3-30b-a3b is denser than the base by active parameters: r")
    assert any(line.startswith("r by every count of N: parameters 0.4") for line in found.details)


def test_the_page_says_whether_a_model_counts_as_a_copy_and_the_recipe_has_the_last_word(written):
    notes = study("llama-3.2-1b-instruct-quantized").notes
    copy = "spinquant counts as a copy of the weights of base, so r has no scatter between training runs: the tables say that it is "
    assert any(note.startswith(copy) for note in notes)
    assert any(note.startswith("qlora counts as trained separately from base") for note in notes)
    child = "[{adopt: {model: published:Meta-Llama-3.1-8B-Instruct-quantized.w4a16, trained: true}}]"
    record = published.assemble(prepare(written("published:Llama-3.1-8B-Instruct", child, ", table: RH-Llama-3.1-8B-Inst, tasks: [MMLU]")))
    assert record.variants[1].comparisons[0].runs_apart == 2
    assert any("the recipe says `trained: true`" in note for note in record.notes)


def test_quantized_children_are_answered_for_by_bits_and_one_benchmark_is_named():
    found = answer(study("qwen2-7b-instruct-quantized"))
    assert found.headline.startswith("Each of 3 variants is denser than the base by stored bits on MMLU, most of all gptq-int4")
    assert any("r by parameters compares the quality N̂ alone" in line for line in found.details)


def test_what_is_special_about_a_comparison_stands_beside_its_verdict():
    record = study("gemma-2-across-tables")
    page = html.render(record)
    reasons = [variant.comparisons[0].reason for variant in record.variants[1:]]
    assert all("different tables" in reason and reason in page for reason in reasons)


def test_the_shipped_study_across_tables_is_marked_and_agrees_with_googles_own():
    for variant in ("gemma-2-9b", "gemma-2-2b"):
        across = comparison("gemma-2-across-tables", variant)
        assert "from different tables" in across.reason
        assert across.ratio.value == pytest.approx(comparison("gemma-2", variant).ratio.value, rel=0.2)


@pytest.mark.parametrize(
    ("parts", "line", "message"),
    [
        ({"base": "Llama-3.1-8B"}, 2, "'Llama-3.1-8B' is no published model; write published:<name>"),
        ({"base": "offline:smollm2-135m"}, 2, "is no published model"),
        ({"base": "published:Llama-3.1-8b"}, 2, "no published scores of 'Llama-3.1-8b'; did you mean 'Llama-3.1-8B'"),
        ({"v": "[{adopt: {model: published:Llama-3.2-1}}]"}, 4, "did you mean 'Llama-3.2-1B"),
        ({"v": "[{adopt: {model: published:Gemma-2-9B}}]"}, 4, f"the table {TABLE} has no Gemma-2-9B; it stands in: Gemma2-report-T13"),
        pytest.param(
            {"v": "[{adopt: {model: published:Llama-3.2-1B, table: Llama3.2-card}}]"},
            4,
            "there is no published table 'Llama3.2-card'; did you mean",
        ),
        ({"base": "published:Mistral-7B"}, 2, "the dimensions of Mistral-7B are not known"),
        ({"v": "[{prune: {method: depth, keep: 3}}]"}, 4, "steps that make one need evaluate: {source: run}"),
        ({"v": "[{adopt: {model: published:Llama-3.2-1B}}, {adopt: {model: published:Llama-3.2-3B}}]"}, 4, "one adopted model a variant"),
        ({"evaluate": f", table: {TABLE}, tasks: [MMLU, arc_easy]"}, 5, "arc_easy is none of the published benchmarks: MMLU, BBH"),
        ({"reference": "olmo-ladder"}, 6, "olmo-ladder knows none of the published benchmarks; these do: llama-1-2, qwen2.5"),
        ({"reference": "qwen2"}, 6, "did you mean 'qwen2.5'"),
        ({"reference": "mine.json"}, 6, "there is no reference file mine.json"),
        ({"hardware": "h100"}, 6, "did you mean 'h100-sxm'"),
    ],
)
def test_a_bad_recipe_gets_one_complaint_with_its_line(written, parts, line, message):
    found, said = complaint(written(**parts))
    assert message in said
    assert found == line


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ("", "which table? {model} stands in: "),
        (", table: Llama3.2-card-bas", "there is no published table 'Llama3.2-card-bas'; did you mean 'Llama3.2-card-base'"),
        (f", table: {TABLE}, tasks: [MBPP]", f"{TABLE} has none of the tasks asked for of {{model}}; it has: MMLU"),
    ],
)
def test_what_is_wrong_for_every_model_is_said_of_each(written, evaluate, message):
    path = written(evaluate=evaluate)
    with pytest.raises(RecipeError) as caught:
        prepare(path)
    _, base, child = str(caught.value).splitlines()
    assert message.format(model="Llama-3.1-8B") in base
    assert message.format(model="Llama-3.2-1B") in child
    assert f"{path}:2:" in base
    assert f"{path}:4:" in child


def test_this_machine_is_left_out_with_a_warning(written):
    plan = prepare(written(hardware="this-machine, h20"))
    assert any("this-machine is left out" in warning for warning in plan.warnings)


def test_only_the_tasks_asked_for_count(written):
    path = written(
        "published:Llama-3.1-8B",
        "[{adopt: {model: published:Llama-3.1-Minitron-4B-Width}}]",
        ", table: Minitron-practice-T1, tasks: [MMLU]",
    )
    record = published.assemble(prepare(path))
    assert [score.task for score in record.variants[1].scores] == ["MMLU"]
    assert [task.task for task in record.variants[1].comparisons[0].tasks] == ["MMLU"]


def test_a_chain_of_adopted_models_is_compared_with_parent_and_root(written):
    more = "  w: {from: v, steps: [{adopt: {model: published:Llama-3.2-1B}}]}\n"
    path = written(v="[{adopt: {model: published:Llama-3.2-3B}}]")
    path.write_text(path.read_text().replace("evaluate:", f"{more}evaluate:"))
    record = published.assemble(prepare(path))
    last = record.variants[-1]
    assert [(one.against, one.relation) for one in last.comparisons] == [("v", "parent"), ("base", "root")]
    assert [step.config["model"] for step in last.steps] == ["Llama-3.1-8B", "Llama-3.2-3B", "Llama-3.2-1B"]


def test_a_reference_of_ones_own_is_named_by_its_path(written, tmp_path):
    own = tmp_path / "own.json"
    raw = json.loads((Path(published.__file__).parents[1] / "data" / "references" / "qwen2.5.json").read_text())
    own.write_text(json.dumps(raw | {"name": "own"}))
    path = written(reference=str(own))
    record = published.assemble(prepare(path))
    ours, shipped = record.variants[1].comparisons[0], comparison("llama-3.1-8b", "llama-3.2-1b")
    assert record.variants[1].density.reference == "own"
    assert ours.ratio.value == pytest.approx(shipped.ratio.value)
    assert {row.setting for row in ours.robustness if row.choice == "reference"} == set(Reference.names())


def test_a_broken_reference_is_refused_before_anything_runs(written, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(BadInput):
        prepare(written(reference=str(broken)))


@pytest.mark.parametrize("name", ["gemma-2", "llama-3.2-3b-instruct-quantized", "gemma-2-across-tables"])
def test_the_page_names_the_table_and_what_other_choices_would_say(name, tmp_path):
    record = study(name)
    page = html.write(record, tmp_path / name).read_text(encoding="utf-8")
    table = record.variants[1].steps[-1].config["table"]
    assert table in page
    assert tables.tables()[table][0] in page
    assert "straight lines" in page
    assert "llama-1-2" in page
    assert "nan" not in page.lower().replace("finance", "").split()
    assert json.loads((tmp_path / name / "study.json").read_text())["study"] == name


def test_the_same_recipe_twice_gives_the_same_figures():
    path = FOLDER / "minitron-4b.yaml"
    assert published.assemble(prepare(path)).variants == study("minitron-4b").variants


def test_published_laws_stand_beside_published_pairs() -> None:
    found = study("qwen2.5-1.5b-quantized").laws
    assert found is not None
    rows = {(row.variant, row.law): row for row in found.predictions}
    four = rows["w4a16", "precision"]
    assert four.predicted is not None
    assert four.measured is not None
    assert four.predicted.high < 0.5 < four.measured.low  # 18T tokens are far outside the fit, and the law predicts far too much
    assert four.outside == ["1.31B parameters without the embedding (fitted on 30M to 220M)", "18T training tokens (fitted on 1.5B to 26B)"]
    assert rows["w4a16", "multiplier"].residual == pytest.approx(-0.04, abs=0.02)
    assert "activations are rounded, too" in rows["w8a8", "precision"].outside
    assert rows["w8a8", "multiplier"].reason == "no multiplier of 8 bits with rounded activations could be found in a source"


def test_weights_that_were_trained_after_rounding_have_no_prediction_of_rounding() -> None:
    found = study("llama-3.2-1b-instruct-quantized").laws
    assert found is not None
    rows = {(row.variant, row.law): row for row in found.predictions}
    assert rows["qlora", "precision"].predicted is None
    assert "trained after rounding" in rows["qlora", "precision"].reason
    assert rows["spinquant", "precision"].predicted is not None


def test_a_quantized_model_beside_another_parent_than_its_own_is_no_step_of_rounding(written) -> None:
    base, table = "published:Qwen2-1.5B-Instruct", ", table: Qwen2-instruct-quant, tasks: [MMLU]"
    for child, rounds in (("Qwen2-1.5B-Instruct-GPTQ-Int4", True), ("Qwen2-0.5B-Instruct-GPTQ-Int4", False)):
        record = published.assemble(prepare(written(base, f"[{{adopt: {{model: published:{child}}}}}]", table)))
        assert ("weight_bits" in record.variants[1].steps[-1].details) == rounds
        assert record.laws is not None
        assert any(row.law == "precision" for row in record.laws.predictions) == rounds
