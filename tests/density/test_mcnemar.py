"""McNemar's test, and draws of whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from compresslab.density.draws import groups_of, resampled_means
from compresslab.density.mcnemar import mcnemar


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 5), (1, 9), (30, 12), (700, 610)])
def test_mcnemar_is_the_two_sided_binomial_test_on_what_changed(lost: int, gained: int):
    parent = np.array([1.0] * lost + [0.0] * gained + [1.0] * 20 + [0.0] * 20)
    child = np.array([0.0] * lost + [1.0] * gained + [1.0] * 20 + [0.0] * 20)
    found = mcnemar(parent, child)
    assert found is not None
    assert (found.lost, found.gained) == (lost, gained)
    assert found.p == pytest.approx(binomtest(lost, lost + gained).pvalue if lost + gained else 1.0)


def test_items_that_may_be_half_right_have_no_mcnemar_test():
    assert mcnemar(np.array([0.5, 1.0]), np.array([1.0, 1.0])) is None


def test_a_benchmark_of_many_subjects_is_drawn_by_subject():
    items = [f"subject{number % 12}/{number}" for number in range(120)]
    groups = groups_of(items)
    assert groups is not None
    assert len(set(groups.tolist())) == 12
    # All items of a subject say the same, so there are only twelve things to be sure of.
    values = (groups % 2).astype(float)[:, None]
    spread = resampled_means(values, 4000, np.random.default_rng(0), groups).std()
    assert spread == pytest.approx(student_error(0.5, 12), rel=0.05)
    assert resampled_means(values, 4000, np.random.default_rng(0)).std() == pytest.approx(student_error(0.5, 120), rel=0.05)


def student_error(deviation: float, units: int) -> float:
    """The standard error that a normal distribution needs for the 95% interval of Student's t, from the deviation in the sample."""
    return deviation / np.sqrt(units - 1) * t.ppf(0.975, units - 1) / norm.ppf(0.975)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_interval_of_a_mean_of_few_units_is_students(grouped: bool):
    """The plain bootstrap of twelve units covers 90 to 91%."""
    rng, covered = np.random.default_rng(5), []
    groups = np.repeat(np.arange(12), 5) if grouped else None
    for _ in range(600):
        units = rng.normal(size=12)
        values = np.repeat(units, 5) if grouped else units
        low, high = np.quantile(resampled_means(values[:, None], 400, rng, groups), [0.025, 0.975])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_no_drawn_mean_leaves_the_range_of_the_values():
    """Eleven groups are right throughout and one is wrong throughout: widened, many draws would pass 1."""
    groups = np.repeat(np.arange(12), 3)
    means = resampled_means((groups > 0).astype(float)[:, None], 2000, np.random.default_rng(2), groups)
    assert means.max() == 1.0
    assert means.min() >= 0.0


@pytest.mark.parametrize(
    "items", [["a", "b"], [f"one/{n}" for n in range(30)], [f"{n}/{n}" for n in range(30)], [*(f"{n % 12}/{n}" for n in range(30)), "x"]]
)
def test_items_without_groups_or_with_few_are_drawn_one_by_one(items: list[str]):
    assert groups_of(items) is None


def test_groups_of_unequal_sizes_weigh_by_their_items():
    groups = np.array([0] * 30 + [1] * 10)
    means = resampled_means(np.array([1.0] * 30 + [0.0] * 10)[:, None], 3000, np.random.default_rng(1), groups)
    assert set(np.round(means[:, 0], 6)) == {0.0, 0.75, 1.0}
