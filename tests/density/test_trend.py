"""How fast the highest density of open models grows, on published scores."""

import csv
import datetime
import functools
import itertools
import math
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.catalog.published_scores import BENCHMARKS, scores_of, weights
from compresslab.catalog.published_shapes import dimensions
from compresslab.density import Measured, Reference, assess
from compresslab.density.trend.fits import ABOVE, BELOW, PLAIN, frontier
from compresslab.density.trend.models import dated_models, early_models, history, history_by_benchmark
from compresslab.density.trend.trend import CHATGPT_RELEASE, PAPER_GROWTH, TrendPoint, trend
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from tools.references.family_scores import QWEN

POINTS = st.lists(st.tuples(st.integers(0, 20), st.floats(-5, 5)), min_size=1, max_size=25)


@functools.cache
def found(reference="qwen2.5", seed=0):
    return trend(reference, resamples=500, seed=seed)


@functools.cache
def on_mmlu(reference="qwen2.5"):
    return trend(reference, resamples=200, benchmarks=("MMLU",))


def arrays(points):
    return np.array([float(day) for day, _ in points]), np.array([value for _, value in points])


@given(POINTS)
def test_the_frontier_is_every_model_that_was_denser_than_all_before_it(points):
    days, logs = arrays(points)
    kept = frontier(days, logs)
    rising = list(zip(days[kept], logs[kept], strict=True))
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(rising))
    for i in range(len(points)):
        beaten = np.any((days < days[i]) & (logs >= logs[i])) or np.any((days == days[i]) & (logs > logs[i]))
        assert beaten == (logs[i] not in {logs[k] for k in kept if days[k] == days[i]})


@given(POINTS)
def test_the_densest_and_the_earliest_are_on_the_frontier(points):
    days, logs = arrays(points)
    kept = frontier(days, logs)
    assert logs[kept[-1]] == logs.max()
    assert days[kept[0]] == days.min()


@given(POINTS, st.floats(0.1, 10), st.floats(-5, 5))
def test_neither_the_unit_of_density_nor_the_first_day_nor_the_order_matters(points, factor, shift):
    days, logs = arrays(points)
    kept = frontier(days, logs)
    assert frontier(days + 1000, logs * 2.0 ** round(factor)) == kept
    turned = frontier(days[::-1], logs[::-1])
    assert list(logs[::-1][turned]) == list(logs[kept])
    assert len(frontier(days, np.full(len(days), shift))) == 1


def test_the_growth_on_the_shipped_data_is_near_the_papers():
    whole = found().whole
    assert 0.003 <= whole.growth.value <= 0.008
    assert whole.growth.low < whole.growth.value < whole.growth.high
    assert whole.growth.low <= PAPER_GROWTH <= whole.growth.high
    assert whole.growth.low > 0
    assert whole.r2 > 0.85
    assert whole.models >= 30
    assert len(whole.frontier) >= 6


def test_another_reference_gives_the_same_growth_within_its_interval():
    ours, theirs = found().whole.growth, found("llama-1-2").whole.growth
    assert ours.low <= theirs.value <= ours.high
    assert theirs.low <= ours.value <= theirs.high


def test_the_doubling_time_is_the_growth_said_otherwise():
    growth, months = found().whole.growth, found().whole.doubling_months
    assert months.value == pytest.approx(math.log(2) / growth.value / (365.25 / 12))
    assert months.low == pytest.approx(math.log(2) / growth.high / (365.25 / 12))
    assert months.high == pytest.approx(math.log(2) / growth.low / (365.25 / 12))
    assert 2.5 <= months.value <= 8
    assert math.log(2) / PAPER_GROWTH / (365.25 / 12) == pytest.approx(3.3, abs=0.05), "the paper's own two figures agree"


def test_the_line_is_the_least_squares_line_through_the_frontier():
    top = [point for point in found().points if point.frontier]
    assert sorted(point.model for point in top) == sorted(found().whole.frontier)
    days = np.array([point.released.toordinal() for point in top], dtype=float)
    logs = np.log([point.density.value for point in top])
    assert found().whole.growth.value == pytest.approx(np.polyfit(days - days.mean(), logs, 1)[0])
    assert found().whole.r2 == pytest.approx(np.corrcoef(days, logs)[0, 1] ** 2)


def test_the_record_setters_are_the_frontier_of_all_models_that_are_no_bounds():
    plain = [point for point in found().points if not point.density.bound]
    kept = frontier(*arrays([(point.released.toordinal(), math.log(point.density.value)) for point in plain]))
    assert [plain[i].model for i in kept] == found().whole.frontier


@pytest.mark.parametrize("reference", ["qwen2.5", "llama-1-2"])
def test_bounds_do_not_enter_and_are_counted(reference):
    result = on_mmlu(reference)
    bounds = [point for point in result.points if point.density.bound]
    assert bounds
    assert not any(point.frontier for point in bounds)
    assert result.whole.models == len(result.points) - len(bounds)
    assert any(f"{len(bounds)} of {len(result.points)} models lie beyond" in note for note in result.notes)
    assert [fit.bounds for fit in result.fits] == [len(bounds)] * 2


@pytest.mark.parametrize("reference", ["qwen2.5", "llama-1-2"])
def test_every_point_is_a_dated_base_model_with_all_five_benchmarks_in_one_table_in_settings_that_are_read(reference):
    read = Reference.load(reference).tasks
    for point in found(reference).points:
        assert isinstance(point, TrendPoint)
        own = {task: score for task, score in scores_of(point.model, point.table).items() if task in read and score.benchmark in BENCHMARKS}
        assert {score.benchmark for score in own.values()} == set(BENCHMARKS)
        assert {(score.kind, score.released) for score in own.values()} == {("base", point.released.isoformat())}
        assert point.density.low <= point.density.value <= point.density.high
    models = [point.model for point in found().points]
    assert len(set(models)) == len(models), "each model once, in the table of its median density"
    assert [point.released for point in found().points] == sorted(point.released for point in found().points)


def test_a_model_whose_table_has_a_benchmark_in_another_setting_is_left_out():
    """The Llama 2 paper has BBH without reasoning, which Llama's reference reads and Qwen2.5's does not."""
    assert scores_of("Llama-1-7B", "Llama2-paper")["BBH direct"].benchmark == "BBH"
    assert "Llama-1-7B" not in {point.model for point in found().points}
    assert "Llama-1-7B" in {point.model for point in found("llama-1-2").points}


@pytest.mark.parametrize("reference", ["qwen2.5", "llama-1-2"])
def test_a_density_is_the_one_on_the_page_of_a_study_of_the_same_benchmarks(reference):
    known = [point for point in found(reference).points if point.model in dimensions()]
    assert len(known) > 10
    for point in known[::3]:
        size, shape = weights(point.model)
        own = {task: score.score for task, score in scores_of(point.model, point.table).items() if score.benchmark in BENCHMARKS}
        one = Measured(name="base", parent="", root="base", size=size, shape=shape, published=own, table=point.table)
        page = assess([one], DensityConfig(reference=reference), [])["base"][0].params
        assert page.value == pytest.approx(point.density.value, rel=0.06), point.model
        assert (page.bound, page.extrapolated) == (point.density.bound, point.density.extrapolated)
        ends = [(page.low, point.density.low), (page.high, point.density.high)]
        for ours, theirs in ends[1 if page.bound == "<" else 0 : 1 if page.bound == ">" else 2]:
            assert math.log(ours) == pytest.approx(math.log(theirs), abs=0.3), point.model


def test_the_familys_own_models_are_about_as_dense_as_one_in_the_tables_of_its_fit():
    models, tables = {model for model, _ in QWEN.models}, {table for evaluation in QWEN.evaluations for table in evaluation}
    own = {point.model: point for point in found().points if point.model in models and point.table in tables}
    assert len(own) >= 5
    assert {model: point.density.value for model, point in own.items() if abs(point.density.value - 1) > 0.4} == {}


def test_too_few_models_before_chatgpt_give_no_line_and_a_note():
    result = found()
    early = [point for point in result.points if point.released < CHATGPT_RELEASE and not point.density.bound]
    assert datetime.date(2022, 11, 30) == CHATGPT_RELEASE
    assert (result.before is None) == (len(early) < 3)
    if result.before is None:
        assert any("before ChatGPT" in note for note in result.notes)
    assert result.after is not None


def test_extrapolated_record_setters_are_named():
    result = found()
    extrapolated = {point.model for point in result.points if point.frontier and point.density.extrapolated}
    (note,) = [note for note in result.notes if note.startswith("extrapolated on the frontier")]
    assert set(note.split(": ")[1].split(", ")) == extrapolated


def test_both_fits_to_all_models_stand_beside_the_record_setters():
    result = found()
    assert [fit.kind for fit in result.fits] == ["quantile regression", "censored likelihood"]
    for fit in result.fits:
        assert fit.models == len(result.points), "bounds enter these fits"
        assert fit.bounds == sum(bool(point.density.bound) for point in result.points)
        assert fit.growth.low < fit.growth.value < fit.growth.high
        assert 0.004 < fit.growth.value < 0.01
        (first, start), (last, end) = fit.line
        days = (datetime.date.fromisoformat(last) - datetime.date.fromisoformat(first)).days
        assert math.log(end / start) / days == pytest.approx(fit.growth.value)


def test_a_bound_stands_at_the_end_of_what_is_read_for_a_benchmark_and_where_the_mean_is_for_a_model():
    """Most models that are bounds lie beyond the reach with one or two benchmarks of five."""
    models = dated_models(Reference.load("qwen2.5"), 100, 0)
    by_mean, by_benchmark = history(models), history_by_benchmark(models)
    assert np.mean(by_mean.sides != PLAIN) > 0.2 > 0.1 > np.mean(by_benchmark.sides != PLAIN)
    assert len(np.unique(by_benchmark.benchmarks)) == len(BENCHMARKS)
    for one in (by_mean, by_benchmark):
        below, above = one.sides == BELOW, one.sides == ABOVE
        assert list(one.lowest[below]) == list(one.logs[below])
        assert list(one.highest[above]) == list(one.logs[above])
    ends = np.log([Reference.load("qwen2.5").readable[0] / model.params for model in models])
    assert set(by_benchmark.lowest.round(9)) == set(ends.round(9))
    assert not set(by_mean.lowest[by_mean.sides == BELOW].round(9)) & set(ends.round(9))


def test_the_quantile_regression_is_surer_of_less_than_the_record_setters_line_claims():
    result = found()
    assert result.fits[0].growth.low < result.whole.growth.low


def test_mmlu_alone_reads_models_from_before_chatgpt():
    result = on_mmlu()
    early = [point for point in result.points if point.released < CHATGPT_RELEASE]
    assert len(early) == len(early_models()) == 26
    assert len(result.points) > 100
    assert result.before_fits
    for fit in result.before_fits:
        assert fit.growth.low < 0 < fit.growth.high, "17 plain densities do not tell the growth"
    assert {fit.models for fit in result.after_fits} == {len(result.points) - 26}


def test_early_models_have_sources_and_dates_from_2020_to_chatgpt():
    rows = list(csv.DictReader((resources.files("compresslab") / "data" / "early_models.csv").read_text("utf-8").splitlines()))
    for row, model in zip(rows, early_models(), strict=True):
        assert datetime.date(2020, 1, 1) <= model.released < CHATGPT_RELEASE
        assert "arXiv" in row["date_source"]
        assert row["score_source"]
        assert 0.2 < model.mmlu < 0.7


def test_differences_between_benchmarks_are_no_error_of_the_references_fit():
    """A fit moves the mean over the benchmarks by no more than it moves the benchmark that it moves most."""
    reference = Reference.load("qwen2.5")
    alone = {benchmark: shifts(reference, (benchmark,)) for benchmark in BENCHMARKS}
    together = shifts(reference, tuple(BENCHMARKS))
    assert len(together) > 30
    most = {model: max(alone[benchmark].get(model, 0.0) for benchmark in BENCHMARKS) for model in together}
    assert np.mean([together[model] < 1.1 * most[model] for model in together]) > 0.9
    assert np.median(list(together.values())) < 0.5 * np.median(list(most.values()))


def shifts(reference, benchmarks):
    """Standard deviation of ln density over the reference's fits, by model."""
    models = dated_models(reference, 60, 0, benchmarks)
    return {model.model: float(np.nanstd(model.whole.fit_draws)) for model in models if not model.estimate.bound}


@pytest.mark.parametrize("reference", ["olmo-ladder", "pythia"])
def test_a_reference_without_the_five_benchmarks_is_refused(reference):
    with pytest.raises(BadInput, match=f"{reference} lacks MMLU, BBH, MATH, HumanEval, MBPP"):
        trend(reference)


def test_an_unknown_reference_is_refused():
    with pytest.raises(BadInput, match="did you mean"):
        trend("qwen25")


def test_the_seed_decides_the_draws_and_moves_the_value_by_little():
    again, other = trend(resamples=500), found(seed=1)
    assert again == found()
    assert other.whole.growth.value == pytest.approx(found().whole.growth.value, rel=0.05)
    assert other.whole.frontier == found().whole.frontier
    assert other.whole.growth.low != found().whole.growth.low
