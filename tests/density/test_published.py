"""Published scores: what the models weigh, where their scores stand, and what the ruler makes of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.catalog import published_scores as tables
from compresslab.catalog.published_settings import TASKS
from compresslab.density import Measured, assess
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size
from tools.references.family_scores import FAMILIES
from tools.references.ladder import read_ladder
from tools.references.pythia import read_pythia

SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
UNLIKE_THE_NAME = {
    # Published without its embeddings, and 7B for what its config counts as 7.7B; 14B for 14.8B.
    "Qwen2-7B-Instruct": 7.615616512e9,
    "Qwen-7B-Chat": 7.721324544e9,
    "Qwen3-14B": 14.768307200e9,
}
FIVE = sorted(tables.BENCHMARKS)
BENCHMARKS = st.sampled_from(FIVE)


def origin(model):
    """The model whose dimensions it has."""
    parent, how = tables.compression(model)
    return parent if how in tables.PACKED and model not in tables.dimensions() else model


def scored(name, model, table, parent="", **change):
    size, shape = tables.weights(model)
    found = {task: score.score for task, score in tables.scores_of(model, table).items()}
    return Measured(name=name, parent=parent, root="base", size=size, shape=shape, published=found, table=table).model_copy(update=change)


def invented(published, name="base", parent="", model="Qwen2.5-7B", **change):
    size, shape = tables.weights(model)
    return Measured(name=name, parent=parent, root="base", size=size, shape=shape, published=published, table="t", **change)


def densities(variants, reference="qwen2.5", tokens=1e12, resamples=1000):
    return assess(variants, DensityConfig(reference=reference, tokens=tokens, resamples=resamples), [])


def test_the_counted_parameters_are_those_that_were_published():
    """Every model whose dimensions are known against the total in its table, to 2.5%."""
    known = {score.model: score for score in tables.scores() if origin(score.model) in tables.dimensions()}
    assert len({origin(model) for model in known}) >= 46
    off = {}
    for model, score in known.items():
        total = tables.weights(model)[0].parameters
        expected = UNLIKE_THE_NAME.get(origin(model), score.params)
        if abs(total / expected - 1) > 0.025:
            off[model] = (total, expected)
    assert off == {}


def test_qwen2_7b_instruct_is_published_without_its_embeddings():
    (stated,) = {score.params for score in tables.scores() if score.model == "Qwen2-7B-Instruct"}
    size, _ = tables.weights("Qwen2-7B-Instruct")
    assert stated == pytest.approx(7.07e9)
    assert size.counted == pytest.approx(stated, rel=0.001), "what multiplies activations: all but the input embedding"


def test_tied_embeddings_count_once_and_a_lookup_does_not():
    tied, untied = tables.weights("Qwen2.5-3B")[0], tables.weights("Qwen2.5-7B")[0]
    assert tied.counted == tied.parameters
    assert untied.parameters - untied.counted == 152064 * 3584
    assert untied.parameters == pytest.approx(7_615_616_512)
    assert untied.effective_bits == pytest.approx(16)


def test_a_mixture_has_fewer_active_parameters():
    size, shape = tables.weights("Qwen3-30B-A3B")
    assert size.parameters == pytest.approx(30.5e9, rel=0.01)
    assert size.active == pytest.approx(3.0e9, rel=0.05)
    assert (shape.experts, shape.experts_per_token) == (128, 8)


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        # Bytes of the files on the Hub: GPTQ and AWQ with groups of 128.
        ("Qwen2-7B-Instruct-GPTQ-Int4", 5.57),
        ("Qwen2-7B-Instruct-AWQ", 5.57),
        ("Qwen2-72B-Instruct-GPTQ-Int4", 41.6),
    ],
)
def test_the_stored_size_of_a_quantized_model_is_that_of_its_files(model, gigabytes):
    size, shape = tables.weights(model)
    assert size.stored_bytes / 1e9 == pytest.approx(gigabytes, rel=0.08)
    assert size.effective_bits == pytest.approx(8 * size.stored_bytes / size.parameters)
    assert size.counted == tables.weights(tables.compression(model)[0])[0].counted
    assert shape.weight_bits < 16
    assert shape.weight_only


@pytest.mark.parametrize(("model", "share"), [("Llama-3.2-1B-Instruct", 1083 / 2358), ("Llama-3.2-3B-Instruct", 2435 / 6129)])
def test_metas_quantized_models_have_the_size_that_the_model_card_states(model, share):
    """Megabytes of the exported file, SpinQuant against BF16 (data/speed_benchmarks.csv holds 1083 and 2358): -54.1% and -60.3%."""
    packed, whole = tables.weights(f"{model}-SpinQuant"), tables.weights(model)
    assert not packed[1].weight_only
    assert packed[0].stored_bytes / whole[0].stored_bytes == pytest.approx(share, rel=0.05)


def test_every_way_of_quantizing_in_the_tables_has_a_format():
    labels = {score.compression for score in tables.scores()}
    assert labels - set(tables.PACKED) <= {"none", "distill", "prune+distill", "prune+continued-pretrain"}
    for form in tables.PACKED.values():
        assert 4 <= form.bits <= 8.25


def test_the_scores_load_with_their_tables():
    scores = tables.all_scores()
    assert len(scores) > 2500
    assert {score.benchmark for score in tables.scores()} == set(tables.BENCHMARKS)
    assert {score.task for score in scores} == {"", *TASKS}
    assert {score.table for score in scores} == set(tables.tables())
    assert all(0 <= score.score <= 1 and score.params >= score.active > 0 for score in scores)
    assert len({(s.table, s.model, s.benchmark) for s in scores}) == len(scores), "one score a model, table and benchmark"
    read = [(s.table, s.model, s.task) for s in scores if s.task]
    assert len(set(read)) == len(read), "one score a model, table and task"
    assert {s.parent for s in scores if s.parent} - {s.model for s in scores} <= {"Nemotron-4-15B"}
    assert all(source and evaluator for evaluator, source in tables.tables().values())


def test_names_that_are_not_there_are_met_with_those_that_are():
    with pytest.raises(BadInput, match=r"no published scores of 'Llama-3\.1-8'.*did you mean 'Llama-3\.1-8B'"):
        tables.find_model("Llama-3.1-8")
    with pytest.raises(BadInput, match=r"no published table 'Gemma2-report'; did you mean 'Gemma2-report-T13'"):
        tables.find_table("Gemma2-report")
    with pytest.raises(BadInput, match=r"no published scores of 'zzz'$"):
        tables.find_model("zzz")
    with pytest.raises(BadInput, match="dimensions of Mistral-7B are not known"):
        tables.weights("Mistral-7B")
    assert tables.scores_of("Gemma-2-9B", "Qwen1-chat-quant") == {}
    assert tables.compression("Gemma-2-27B") == ("", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"score": ""}, r"T, M, MMLU is missing; it must be a number"),
        ({"score": "high"}, r"T, M, MMLU is high"),
        ({"score": "nan"}, r"T, M, MMLU is nan; it must lie between"),
        ({"score": "101"}, r"T, M, MMLU is 101"),
        ({"score": "-1"}, r"T, M, MMLU is -1"),
        ({"params_total": ""}, r"params_total is missing"),
        ({"params_total": "0"}, r"params_total is 0"),
    ],
)
def test_a_table_with_a_gap_is_refused_by_its_row(monkeypatch, row, message):
    columns = (
        "table_id model parent family params_total params_active release_date train_tokens kind compression benchmark metric n_shot note"
    )
    whole = dict.fromkeys(columns.split(), "") | {"table_id": "T", "model": "M", "benchmark": "MMLU", "score": "50", "params_total": "7"}
    monkeypatch.setattr(tables, "_rows", lambda _: [whole | row])
    with pytest.raises(BadInput, match=message):
        tables.all_scores.__wrapped__()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_familys_own_models_have_density_one_within_their_interval(name):
    family = FAMILIES[name]
    for model, tokens in family.models:
        table = next(table for table in family.evaluations[0] if tables.scores_of(model, table))
        found = densities([scored(model, model, table)], name, tokens)[model][0].params
        assert found.low <= 1 <= found.high, model
        assert found.value == pytest.approx(1, abs=0.3), model
        assert not found.bound


def own_density(reference, run, rows, words):
    """The density of a reference's run from its own losses, as if items without noise had given them."""
    n, flat, items = round(rows["n"].iloc[0] * 1e9), np.tile([0.9999, 1.0001], 10), {}
    for task, loss in zip(rows["task"], rows["loss"], strict=True):
        items[task] = ItemScores(
            task=task,
            item=[str(i) for i in range(20)],
            bits_per_byte=None if words else (loss * flat).tolist(),
            logprob=(-loss * math.log(2) * flat).tolist() if words else None,
            correct=[float(i % 2) for i in range(20)],
            choice=[0] * 20,
            gold=[0] * 20,
        )
    size = Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)
    one = Measured(name=run, root=run, size=size, shape=SHAPE, items=items)
    return densities([one], reference, rows["d"].iloc[0] * 1e11, 500)[run][0].params


def test_the_ladders_own_runs_have_density_one_within_their_interval():
    table = read_ladder()
    table = table[~table["long"]]
    found = [own_density("olmo-ladder", run, rows, False) for run, rows in table.groupby("run")]
    assert len(found) == 30
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.95
    assert np.median([abs(math.log(one.value)) for one in found]) < math.log(1.25)
    assert np.median([math.log(one.high / one.low) for one in found]) < math.log(4), "and not because the intervals say nothing"


def test_pythias_own_models_have_density_one_within_their_interval():
    table = read_pythia()
    table = table[table["task"] == "lambada_openai"]
    last = [rows[rows["d"] == rows["d"].max()] for _, rows in table.groupby("run")]
    found = [own_density("pythia", rows["run"].iloc[0], rows, True) for rows in last]
    assert len(found) == 16
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.9
    assert np.median([math.log(one.high / one.low) for one in found]) < math.log(5)


def test_the_same_weights_share_what_is_peculiar_to_them():
    base = scored("base", "Qwen2-7B-Instruct", "Qwen2-instruct-quant")
    child = scored("child", "Qwen2-7B-Instruct-GPTQ-Int4", "Qwen2-instruct-quant", "base")
    apart = densities([base, child])["child"][1][0].ratio
    shared = densities([base, child.model_copy(update={"runs": ["base"]})])["child"][1][0].ratio
    assert shared.value == apart.value
    assert apart.low < shared.low < shared.high < apart.high
    assert math.log(shared.high / shared.low) < 0.7 * math.log(apart.high / apart.low)


@pytest.mark.parametrize("reference", sorted(FAMILIES))
@settings(max_examples=25, deadline=None)
@given(task=BENCHMARKS, below=st.floats(0.02, 0.999))
def test_a_score_at_or_below_chance_is_an_upper_bound(reference, task, below):
    chance = tables.BENCHMARKS[task][1]
    found = densities([invented({task: chance * below or 1e-9})], reference, resamples=200)["base"][0]
    assert found.params.bound == "<"
    assert found.params.low == 0
    assert "is a bound" in found.tasks[0].reason


@pytest.mark.parametrize("reference", sorted(FAMILIES))
@pytest.mark.parametrize(("task", "score"), [(task, score) for task in tables.BENCHMARKS for score in (0.0, 1.0)])
def test_a_score_of_nothing_or_of_all_is_a_bound(reference, task, score):
    found = densities([invented({task: score})], reference, resamples=200)["base"][0]
    assert found.params.bound == ("<" if score == 0 else ">")
    assert (found.params.low, found.params.high)[score == 1] == (0 if score == 0 else math.inf)
    assert "is a bound" in found.tasks[0].reason


def test_a_model_at_chance_on_most_benchmarks_is_a_bound_whatever_it_does_on_one():
    found = densities([invented({"MMLU": 0.25, "BBH": 0.288, "MATH": 0.005, "HumanEval": 0.01, "MBPP": 0.1})], resamples=400)["base"][0]
    assert found.params.bound == "<"


def test_a_benchmark_near_nothing_does_not_turn_the_others_into_a_bound():
    """HumanEval has 164 items and MMLU 14,042: at 0.6% of HumanEval r is what MMLU says, and HumanEval is named as left out."""
    for score in (0.006, 0.0):
        base = invented({"MMLU": 0.66, "BBH": 0.6, "HumanEval": 0.35})
        child = invented({"MMLU": 0.55, "BBH": 0.5, "HumanEval": score}, name="child", parent="base")
        comparison = densities([base, child], "qwen2.5", resamples=400)["child"][1][0]
        assert not comparison.ratio.bound
        assert "without HumanEval" in comparison.reason


@pytest.mark.parametrize("task", sorted(tables.BENCHMARKS))
def test_a_score_close_to_all_is_a_lower_bound(task):
    found = densities([invented({task: 0.9999})], resamples=200)["base"][0]
    assert found.params.bound == ">"
    assert found.params.high == math.inf


@pytest.mark.parametrize("score", [math.nan, -0.01, 1.01, math.inf, 68.7])
def test_what_is_no_score_is_refused_by_model_and_benchmark(score):
    with pytest.raises(BadInput, match=r"base, MMLU: .* is no score"):
        densities([invented({"MMLU": score})])
    with pytest.raises(BadInput, match=r"base: GSM8K is a benchmark in several settings; write GSM8K 4-shot"):
        densities([invented({"GSM8K": 0.5})])


@settings(max_examples=30, deadline=None)
@given(task=BENCHMARKS, score=st.floats(0.3, 0.9), less=st.floats(0.3, 1), reference=st.sampled_from(sorted(FAMILIES)))
def test_density_falls_as_the_score_falls(task, score, less, reference):
    high, low = (densities([invented({task: s})], reference, resamples=200)["base"][0].params for s in (score, score * less))
    assert low.value <= high.value


def test_r_of_a_model_and_itself_under_another_name_is_one():
    table = "Gemma2-report-T13"
    result = densities([scored("base", "Gemma-2-9B", table), scored("child", "Gemma-2-9B", table, "base")])
    comparison = result["child"][1][0]
    assert comparison.ratio.value == pytest.approx(1)
    assert comparison.verdict == "inconclusive"
    assert json.loads(comparison.model_dump_json())["p"] == comparison.p


SCORES = st.dictionaries(BENCHMARKS, st.one_of(st.floats(1e-6, 1 - 1e-6), st.sampled_from([0.0, 0.25, 1.0])), min_size=1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(base=SCORES, child=SCORES)
def test_whatever_the_scores_no_end_is_nan(base, child):
    result = densities([invented(base), invented(child, "child", "base")], resamples=200)
    found = [result[name][0].params for name in result] + [result["child"][1][0].ratio]
    for interval in found:
        if interval is not None:
            assert 0 <= interval.low <= interval.value <= interval.high
            assert math.isfinite(interval.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_two_benchmarks_at_the_two_ends_of_a_ruler_give_no_nan():
    model = invented({"MBPP": 0.013824559002540659, "MMLU": 0.7617557810752562})
    found = densities([model], "llama-1-2", resamples=200)["base"][0].params
    assert found is None or math.isfinite(found.value)


def test_no_number_of_items_decides_what_the_scatter_of_published_models_leaves_open(monkeypatch):
    """Were there a thousand times the items, the interval would be as wide: the count asked for cannot be finite."""
    table, pair = "Minitron-practice-T1", (("base", "Llama-3.1-8B", ""), ("child", "Llama-3.1-Minitron-4B-Width", "base"))
    variants = [scored(name, model, table, parent) for name, model, parent in pair]
    few = densities(variants)["child"][1][0]
    monkeypatch.setattr("compresslab.density.draws.TASKS", {name: task._replace(items=1000 * task.items) for name, task in TASKS.items()})
    many = densities(variants)["child"][1][0]
    assert few.verdict == many.verdict == "inconclusive"
    assert few.items_needed == math.inf
