"""The noise floor: what two runs of the same step differ by, against scipy's distributions and against simulated runs."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from compresslab.density.noise import noise_floor


def test_the_floor_of_one_other_run_is_the_prediction_interval_of_a_further_replicate() -> None:
    values, other = [0.51, 0.53, 0.55], 0.60
    found = noise_floor(values, [other])
    s = statistics.stdev(values)
    assert found.effect == pytest.approx(0.53 - 0.60)
    assert found.degrees == 2
    assert found.floor == pytest.approx(stats.t.ppf(0.975, 2) * s * math.sqrt(1 + 1 / 3), rel=1e-4)
    assert found.twice is not None
    assert found.twice.value == pytest.approx(math.sqrt(2) * s)
    assert found.twice.low == pytest.approx(math.sqrt(2) * s * math.sqrt(2 / stats.chi2.ppf(0.975, 2)))
    assert found.twice.high == pytest.approx(math.sqrt(2) * s * math.sqrt(2 / stats.chi2.ppf(0.025, 2)))


def test_two_replicated_variants_are_held_against_both_spreads() -> None:
    values, others = [1.0, 1.2, 1.1], [1.5, 1.4, 1.6, 1.55]
    found = noise_floor(values, others)
    reference = stats.ttest_ind(values, others)
    assert found.degrees == reference.df
    assert found.floor is not None
    assert found.effect / found.floor == pytest.approx(reference.statistic / stats.t.ppf(0.975, reference.df), rel=1e-4)


def test_equal_replicates_have_no_floor() -> None:
    assert noise_floor([0.5, 0.5, 0.5], [0.7]) == (pytest.approx(-0.2), 2, None, None)


def test_replicates_that_are_equal_but_for_rounding_have_no_floor() -> None:
    tasks = [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1]]
    means = [sum(one) / 3 for one in tasks]
    assert len(set(means)) > 1
    assert noise_floor(means, [0.7])[2:] == (None, None)
    assert noise_floor([0.7, 0.8], [*means])[2] is not None


def test_two_replicates_leave_an_interval_that_is_wide() -> None:
    two, three = noise_floor([1.0, 1.1], [0.0]).twice, noise_floor([1.0, 1.05, 1.1], [0.0]).twice
    assert two is not None
    assert three is not None
    assert two.high / two.low == pytest.approx(71.5, rel=0.01)  # sqrt of the ratio of chi-square's quantiles
    assert three.high / three.low == pytest.approx(12.1, rel=0.01)


@pytest.mark.parametrize(("count", "others"), [(2, 1), (3, 1), (5, 1), (3, 3)])
def test_runs_of_the_same_step_exceed_the_floor_in_one_of_twenty_cases(count: int, others: int) -> None:
    draw = np.random.default_rng(count * 10 + others)
    larger, covered = 0, 0
    for _ in range(2000):
        found = noise_floor(draw.normal(3, 0.1, count).tolist(), draw.normal(3, 0.1, others).tolist())
        assert found.floor is not None
        assert found.twice is not None
        larger += abs(found.effect) > found.floor
        covered += found.twice.low <= math.sqrt(2) * 0.1 <= found.twice.high
    assert larger / 2000 == pytest.approx(0.05, abs=0.015)
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)
