"""Scores are read in one setting: which task a table's benchmark is, what no reference reads, and tables joined by common models."""

import math

import pytest

from compresslab.catalog import published_scores as tables
from compresslab.catalog.published_settings import TASKS, mismatch, task_of
from compresslab.density import Measured, Reference, assess
from compresslab.density.anchors import anchors
from compresslab.recipe.schema import DensityConfig


def read(name, model, table, parent="", **change):
    size, shape = tables.weights(model)
    published = {task: score.score for task, score in tables.scores_of(model, table).items()}
    measured = Measured(name=name, parent=parent, root="base", size=size, shape=shape, published=published, table=table)
    return measured.model_copy(update=change)


def compared(child, table, parent, **config):
    variants = [read("base", parent, table), read("child", child, table, "base")]
    return assess(variants, DensityConfig(reference="qwen2.5", resamples=400, **config), [])["child"][1][0]


@pytest.mark.parametrize(
    ("benchmark", "table", "shots", "metric", "task"),
    [
        ("BBH", "Gemma2-report-T13", "3 (CoT)", "em", "BBH"),
        ("BBH", "Llama2-paper", "3", "em", "BBH direct"),
        ("BBH", "RH-Llama-3.1-8B-Inst", "3 (OpenLLM v2, normalised)", "em", ""),
        ("BBH(OpenLLM v2)", "ObsScaling-v2", "3", "acc_norm", "BBH likelihood"),
        ("GSM8K", "Gemma2-report-T13", "5", "em", "GSM8K 5-shot"),
        ("GSM8K", "Qwen2.5-blog-base-1", "4", "em", "GSM8K 4-shot"),
        ("MBPP", "Qwen2.5-blog-base-1", "0", "pass@1", "MBPP EvalPlus"),
        ("MBPP", "Minitron-practice-T1", "0", "pass@1", ""),
        ("ARC-C", "Minitron-practice-T1", "25", "acc", "ARC-C 25-shot"),
        ("ARC-C", "Llama3.2-card-base", "25", "acc_char", ""),
        ("MMLU", "a table that nobody has", "2", "acc", ""),
    ],
)
def test_a_benchmark_is_a_task_only_in_its_setting(benchmark, table, shots, metric, task):
    assert task_of(benchmark, table, shots, metric)[0] == task


def test_every_row_of_every_table_has_its_setting():
    """No row falls through to the words for an unknown setting."""
    unread = [score for score in tables.all_scores() if not score.task]
    fallen = {(one.benchmark, one.table, one.shots, one.metric) for one in unread if one.setting.endswith(f"shots, {one.metric}")}
    assert fallen == set()


def test_a_score_that_is_normalised_by_a_guess_is_not_read_as_a_plain_one():
    """Llama-3.1-8B-Instruct has 30.1 there; read as 3-shot BBH it would have a density of 0.15."""
    model, table = "Llama-3.1-8B-Instruct", "RH-Llama-3.1-8B-Inst"
    assert "BBH" not in tables.scores_of(model, table)
    assert any(text.startswith("BBH (3-shot, likelihood of the options, normalised") for text in tables.unread(model, table))


def test_a_task_that_the_reference_has_in_another_setting_is_refused_in_one_sentence():
    comparison = compared("Llama-3.1-Minitron-4B-Width", "Minitron-practice-T1", "Llama-3.1-8B")
    assert set(comparison.rests_on) == {"MMLU", "ARC-C 25-shot", "HellaSwag 10-shot", "WinoGrande 5-shot"}
    said = "GSM8K 5-shot is 5-shot, exact match after ####, which qwen2.5 does not read; it reads GSM8K 4-shot (4-shot, exact match)"
    assert said in comparison.reason
    assert mismatch("BBH direct", "qwen2.5", Reference.load("qwen2.5").tasks).endswith(
        "it reads BBH (3-shot, chain of thought, exact match)"
    )


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("qwen2.5", {"MMLU", "BBH", "MBPP", "MBPP EvalPlus", "GSM8K 4-shot", "MMLU-Pro", "ARC-C 25-shot", "HellaSwag 10-shot"}),
        ("llama-1-2", {"MMLU", "BBH direct", "GSM8K 5-shot", "GSM8K 8-shot", "HellaSwag 10-shot", "WinoGrande 0-shot", "BBH likelihood"}),
    ],
)
def test_a_family_is_read_in_every_setting_that_its_own_models_have(name, tasks):
    reference = Reference.load(name)
    assert tasks <= set(reference.tasks) <= set(TASKS)
    for fit in reference.tasks.values():
        assert len(fit.points) >= 4
        assert len(fit.score_residuals) == reference.runs, "the same index is the same model in all tasks"


def test_most_rows_of_the_pairs_can_be_read():
    for model, least in (("Llama-3.1-8B", 27), ("Llama-3.2-3B", 5), ("Llama-3.1-Minitron-4B-Width", 5), ("Gemma-2-27B", 26)):
        rows = [score for score in tables.all_scores() if score.model == model]
        assert sum(bool(score.task) for score in rows) >= least, model


def test_r_of_several_benchmarks_has_a_prediction_beside_it_and_rows_that_leave_each_out():
    comparison = compared("Gemma-2-9B", "Gemma2-report-T13", "Gemma-2-27B")
    assert len(comparison.rests_on) == 8
    assert comparison.prediction.low < comparison.ratio.low < comparison.ratio.high < comparison.prediction.high
    rows = {(row.choice, row.setting) for row in comparison.robustness}
    assert ("one more benchmark", "where its r is expected") in rows
    assert {setting for choice, setting in rows if choice == "task left out"} == set(comparison.rests_on)


def test_the_bits_of_n_are_those_of_the_parameters_that_n_counts():
    """Llama-3.1-8B at 4 bits: its input embedding of 16 bits is no part of N."""
    child = read("child", "Llama-3.1-8B-Instruct-INT4-AWQ", "ModelOpt-Windows-INT4", "base")
    base = read("base", "Llama-3.1-8B-Instruct", "ModelOpt-Windows-INT4")
    comparison = assess([base, child], DensityConfig(reference="qwen2.5", resamples=200), [])["child"][1][0]
    assert comparison.ratio.value / comparison.ratio_bits.value == pytest.approx(0.312, abs=0.001)
    assert comparison.count == "bits"


def test_a_mixture_beside_a_dense_model_counts_its_active_parameters():
    comparison = compared("Qwen3-30B-A3B", "Qwen3-report-base", "Qwen3-14B")
    assert comparison.count == "active"
    assert comparison.headline == (comparison.ratio_active, "raised")
    assert comparison.ratio_active.value / comparison.ratio.value == pytest.approx(10, rel=0.05)
    assert comparison.verdict_active == "raised"


def test_models_in_both_tables_tell_how_the_tables_differ():
    found, models = anchors("Qwen2-blog-base-5", "ObsScaling-base")
    assert models >= 10
    assert set(found) == {"MMLU", "HumanEval", "ARC-C 25-shot", "HellaSwag 10-shot", "WinoGrande 5-shot"}
    for anchor in found.values():
        assert abs(anchor.shift) < 3 * anchor.error
    none, shared = anchors("Gemma2-report-T13", "Llama3.2-card-base")
    assert (none, shared) == ({}, 0)


def test_an_anchored_score_is_moved_and_surer_of_nothing():
    base = read("base", "Qwen2.5-7B", "Qwen2.5-blog-base-3")
    child = read("child", "Qwen2.5-3B", "Qwen2.5-blog-base-4", "base")
    only = {task: child.published[task] for task in ("MMLU", "ARC-C 25-shot", "HellaSwag 10-shot", "WinoGrande 5-shot")}
    child = child.model_copy(update={"published": only})
    found, _ = anchors("Qwen2-blog-base-5", "ObsScaling-base")
    moved = {task: found[task].model_copy(update={"shift": 0.3}) for task in only}
    ratios = [
        assess([base, variant], DensityConfig(reference="qwen2.5", resamples=400), [])["child"][1][0].tasks[0].ratio_by_score
        for variant in (child, child.model_copy(update={"anchors": moved}))
    ]
    assert ratios[1].value > 1.2 * ratios[0].value
    assert math.log(ratios[1].high / ratios[1].low) > math.log(ratios[0].high / ratios[0].low)
