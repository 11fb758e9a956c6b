"""One estimate over published benchmarks: random effects, Student's t, bounds, and what the benchmarks have in common."""

import math

import numpy as np
import pytest
from scipy import stats

from compresslab.density import student
from compresslab.density.intervals import LogEstimate, p_value
from compresslab.density.items_needed import factor_that_decides
from compresslab.density.synthesis import MIN_HETEROGENEITY, expected_error, paule_mandel, synthesize

DRAWS = 1000
NORMAL = stats.norm.ppf((np.arange(DRAWS) + 0.5) / DRAWS)


def part(point, error, seed=None, common=0.0):
    """An estimate with draws of its own; `common` times one set of draws is added to all parts."""
    rng = np.random.default_rng(None if seed is None else seed)
    draws = point + error * (rng.permutation(NORMAL) if seed is not None else NORMAL)
    draws = draws + common * np.random.default_rng(99).permutation(NORMAL)
    return LogEstimate(point, draws, draws)


def parts(points, errors, common=0.0):
    return [part(point, error, seed, common) for seed, (point, error) in enumerate(zip(points, errors, strict=True))]


@pytest.mark.parametrize("degrees", [1.0, 1.7, 2.0, 4.0, 8.0, 500.0])
def test_quantiles_and_tails_of_t_are_scipys(degrees):
    p = np.array([0.001, 0.025, 0.3, 0.975])
    assert student.quantiles(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-3)
    assert student.two_sided(3.3, degrees) == pytest.approx(2 * stats.t.sf(3.3, degrees), rel=1e-3)


def test_tau_squared_makes_the_sum_of_squares_its_expectation():
    y, v = np.array([0.5, -0.4, 0.1, 0.9]), np.array([0.01, 0.02, 0.05, 0.01])
    weight = 1 / (v + paule_mandel(y, v))
    assert float(weight @ (y - weight @ y / weight.sum()) ** 2) == pytest.approx(3)
    assert paule_mandel(np.array([0.1, 0.1, 0.12]), v[:3]) == 0


def test_benchmarks_that_disagree_have_the_t_interval_of_their_mean():
    """With equal errors that are small beside the disagreement it is that of a sample of four."""
    y = [0.5, -0.4, 0.1, 0.9]
    found = synthesize(parts(y, [0.02] * 4))
    half = stats.t.ppf(0.975, 3) * np.std(y, ddof=1) / 2
    assert found.mean.point == pytest.approx(np.mean(y), abs=0.01)
    interval = found.mean.interval()
    assert math.log(interval.high) - found.mean.point == pytest.approx(half, rel=0.03)
    assert p_value(found.mean) == pytest.approx(stats.ttest_1samp(y, 0).pvalue, rel=0.03)
    assert found.heterogeneity == pytest.approx(np.std(y, ddof=1), rel=0.02)


def test_two_benchmarks_that_agree_by_chance_are_no_surer_than_their_errors():
    mean = synthesize(parts([0.3, 0.3001], [0.1, 0.1])).mean.interval()
    assert math.log(mean.high / mean.low) / 2 == pytest.approx(1.96 * 0.1 / math.sqrt(2), rel=0.1)


def test_one_precise_benchmark_does_not_outweigh_all_others():
    found = synthesize(parts([0.5, 0.0, 0.0, 0.0], [0.01, 0.1, 0.1, 0.1]))
    weight = found.mean.point / 0.5
    assert weight < (1 + (0.1 / MIN_HETEROGENEITY) ** 2) / 4
    assert synthesize(parts([0.5, 0.0, 0.0, 0.0], [0.01, 0.1, 0.1, 0.1]), equal_weights=True).mean.point == pytest.approx(0.125)


def test_an_error_that_all_benchmarks_share_does_not_average_out():
    apart, together = (synthesize(parts([0.1, 0.2, 0.0, 0.1, 0.15, 0.05], [0.05] * 6, common)).mean.student[0] for common in (0.0, 0.4))
    assert apart < 0.06
    assert together == pytest.approx(0.4, rel=0.15)


def test_the_prediction_for_one_more_benchmark_is_wider_than_the_mean():
    found = synthesize(parts([0.5, -0.4, 0.1, 0.9, 0.2], [0.02] * 5))
    mean, ahead = found.mean.interval(), found.prediction.interval()
    assert ahead.value == mean.value
    assert ahead.low < mean.low < mean.high < ahead.high
    assert synthesize(parts([0.5, 0.1], [0.1, 0.1])).prediction is None


def test_what_several_models_share_still_cancels_because_draws_keep_their_ranks():
    one = synthesize(parts([0.1, 0.2, 0.3], [0.01] * 3, common=0.5)).mean
    other = synthesize(parts([0.4, 0.5, 0.6], [0.01] * 3, common=0.5)).mean
    assert np.std(one.lower - other.lower) < 0.1 * np.std(one.lower)


def test_one_benchmark_is_itself_and_none_is_none():
    alone = part(0.3, 0.1, 0)
    assert synthesize([alone]).mean.interval() == alone.interval()
    assert synthesize([]) is None


def test_a_bound_makes_the_mean_a_bound_on_its_side_and_two_sides_leave_it_unknown():
    endless = np.full(DRAWS, np.inf)
    below = LogEstimate(-1.0, -endless, np.full(DRAWS, -1.0), "<", width=0.2)
    above = LogEstimate(1.0, np.full(DRAWS, 1.0), endless, ">", width=0.2)
    mean = synthesize([part(-0.8, 0.1, 0), part(-0.9, 0.1, 1), below]).mean.interval()
    assert (mean.bound, mean.low) == ("<", 0.0)
    assert math.isfinite(mean.high)
    assert synthesize([part(0.0, 0.1, 0), below, above]) is None


def test_an_estimate_that_most_draws_are_silent_on_is_left_out():
    silent = LogEstimate(5.0, np.where(np.arange(DRAWS) % 3 > 0, np.nan, 5.0), np.where(np.arange(DRAWS) % 3 > 0, np.nan, 5.0))
    assert synthesize([part(0.1, 0.1, 0), silent]).mean.point == 0.1


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_the_interval_covers_the_truth_when_benchmarks_disagree(k):
    """Heterogeneity 0.3; `experiments/ruler/synthesis.py` has the table. Precision weights and the Birge ratio cover 59 to 66%."""
    rng, errors, hits = np.random.default_rng(k), np.array([0.03, 0.08, 0.06, 0.5, 0.12, 0.15, 0.1, 0.1, 0.3]), 0
    count = 400
    for _ in range(count):
        own = rng.permutation(errors)[:k]
        found = synthesize(parts(rng.normal(0, 0.3, k) + rng.normal(size=k) * own, own)).mean
        error, degrees = found.student
        hits += abs(found.point) <= error * student.quantiles(np.array([0.975]), degrees)[0]
    assert 0.92 <= hits / count <= 0.985


def test_more_items_shrink_the_items_part_of_the_error_and_neither_tau_nor_the_reference():
    """By hand: four benchmarks, errors 0.1 of which 0.08 are of the items, and points whose tau^2 is that of Paule and Mandel."""
    points, errors = [0.5, -0.4, 0.1, 0.9], [0.1] * 4
    observed = parts(points, errors)
    tau2 = synthesize(observed).heterogeneity ** 2
    for factor in (1.0, 4.0, 1e9):
        left = 0.1**2 - 0.08**2 + 0.08**2 / factor
        variance, degrees = expected_error(observed, np.full(4, 0.08**2))(factor)
        assert variance == pytest.approx((left + tau2) / 4, rel=0.05)
        assert degrees == pytest.approx(3, rel=0.1)
    assert expected_error(observed, np.full(4, 0.08**2))(1.0)[0] == pytest.approx(synthesize(observed).mean.student[0] ** 2, rel=0.05)


def test_tau_is_estimated_once_however_many_numbers_of_items_are_tried(monkeypatch):
    calls = []
    monkeypatch.setattr("compresslab.density.synthesis.paule_mandel", lambda *args: calls.append(1) or paule_mandel(*args))
    factor_that_decides(0.4, expected_error(parts([0.5, -0.4, 0.1, 0.9], [0.1] * 4), np.full(4, 0.08**2)), 0.05)
    assert len(calls) == 1


def test_with_the_factor_of_items_that_is_named_eight_in_ten_simulated_pairs_are_decided():
    """Eight benchmarks that differ by 0.2 in ln r, with errors of 0.5 of the items alone; r is 1.35. Counting tau^2 once more, in the
    reference's part too, would ask for several times as many items."""
    rng, tau, error, truth = np.random.default_rng(5), 0.2, 0.5, 0.3
    quantiles = stats.norm.ppf((np.arange(8) + 0.5) / 8)
    deviations = quantiles / quantiles.std(ddof=1) * math.hypot(tau, error)
    observed = parts(truth + deviations, [error] * 8)
    factor = factor_that_decides(truth, expected_error(observed, np.full(8, error**2)), 0.05)
    decided = 0
    for _ in range(300):
        points = truth + rng.normal(0, math.hypot(tau, error / math.sqrt(factor)), 8)
        decided += p_value(synthesize(parts(points, [error / math.sqrt(factor)] * 8)).mean) < 0.05
    assert 3 < factor < 30
    assert 0.72 < decided / 300 < 0.88
