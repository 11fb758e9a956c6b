"""What leaving out model sizes says of a reference: the weights of the forms of its law, and how far it is read."""

import numpy as np
import pandas as pd
import pytest

from compresslab.density.references.laws import loss_law
from compresslab.density.references.left_out import (
    TYPICAL,
    WORST,
    FittedLaws,
    data_of,
    density_errors,
    fit_laws,
    form_weight,
    reach,
    reach_of,
)

SIZES, BUDGETS = (0.1, 0.2, 0.4, 0.8, 1.6), (20.0, 60.0, 200.0)
LAWS = {
    "easy": np.array([0.4, np.log(0.3), np.log(0.4), np.log(0.1), np.log(0.3)]),
    "hard": np.array([0.7, np.log(0.2), np.log(0.5), np.log(0.15), np.log(0.35)]),
}
TASKS = tuple(LAWS)


def misses(*of_sizes, runs=5, seed=0):
    """ln(predicted / measured) of left-out sizes, (tasks, runs) each, of about the given magnitudes and with the same signs every time."""
    rng = np.random.default_rng(seed)
    return [size * rng.choice([-1.0, 1.0]) * rng.uniform(0.9, 1.1, (2, runs)) for size in of_sizes]


def ladder(sizes=SIZES, wrong=None):
    """Runs that follow `LAWS` but for noise and a factor on the loss of some sizes, given by their label."""
    rng = np.random.default_rng(1)
    runs = [(n, per_parameter * n / 100) for n in sizes for per_parameter in BUDGETS]
    table = pd.DataFrame([{"run": f"{n}-{d}", "size": str(n), "n": n, "d": d} for n, d in runs])
    factor = np.exp(rng.normal(0, 0.002, len(table))) * table["size"].map(lambda size: (wrong or {}).get(size, 1.0))
    return {task: table.assign(task=task, loss=loss_law(law, table["n"], table["d"]) * factor) for task, law in LAWS.items()}


def test_a_form_that_predicts_much_better_gets_nearly_all_the_weight():
    good, bad = misses(*[0.005] * 6), misses(*[0.05] * 6)
    assert form_weight(good, bad) > 0.99
    assert form_weight(bad, good) < 0.01


def test_two_forms_that_predict_alike_weigh_the_same():
    alike = misses(0.01, 0.02, 0.01, 0.03)
    assert form_weight(alike, alike) == 0.5
    assert form_weight(alike, [-miss for miss in alike]) == pytest.approx(0.5)


def test_the_weights_of_two_forms_are_complements():
    first, second = misses(0.01, 0.02, 0.01, 0.03), misses(0.02, 0.01, 0.02, 0.02)
    assert form_weight(first, second) + form_weight(second, first) == pytest.approx(1)


def test_few_sizes_that_do_not_agree_are_not_sure_and_many_are_surer():
    """The first form is better at three sizes of four, the second by far at the last."""
    pattern = (0.01, 0.01, 0.01, 0.05), (0.025, 0.025, 0.025, 0.025)
    few, many = (form_weight(misses(*pattern[0] * times), misses(*pattern[1] * times)) for times in (1, 12))
    assert 0.1 < few < 0.9
    assert abs(many - 0.5) > abs(few - 0.5)


def test_more_runs_of_the_same_sizes_make_no_form_surer():
    """The runs of a size miss together, so a size is one observation."""
    first, second = misses(0.01, 0.02, 0.03), misses(0.02, 0.02, 0.02)
    more = [np.tile(miss, (1, 10)) for miss in first], [np.tile(miss, (1, 10)) for miss in second]
    assert form_weight(*more) == pytest.approx(form_weight(first, second))


def test_a_run_of_a_model_twice_as_good_is_read_at_a_density_of_two():
    laws = FittedLaws(TASKS, [], np.ones(2), np.stack(list(LAWS.values())), True)
    n = np.array([0.2, 0.8, 3.2])
    # 2e11 tokens for 1e9 parameters are the 200 a parameter at which all are read.
    assert density_errors(laws, [(n, 2 * n, loss_law(law, 2 * n, 4 * n)) for law in LAWS.values()], 200.0) == pytest.approx(np.log(2))
    one_of_two = [(n, 2 * n, loss_law(law, factor * n, 2 * factor * n)) for law, factor in zip(LAWS.values(), (4, 1), strict=True)]
    assert density_errors(laws, one_of_two, 200.0) == pytest.approx(np.log(2)), "the mean over tasks is geometric"


@pytest.mark.parametrize("per_parameter", [20.0, 200.0, 2000.0])
def test_a_run_that_follows_the_law_has_density_one_whatever_its_own_budget(per_parameter):
    laws = FittedLaws(TASKS, [], np.ones(2), np.stack(list(LAWS.values())), True)
    n, d = np.array([0.2, 0.2, 0.8, 3.2]), np.array([0.05, 3.0, 1.0, 0.4])
    own = [(n, d, loss_law(law, n, d)) for law in LAWS.values()]
    assert density_errors(laws, own, per_parameter) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_a_ladder_that_follows_its_law_is_read_as_far_as_its_sizes_test_it():
    """Three of five sizes remain, so a factor of four is tested on either side."""
    assert reach(["easy"], ladder(), irreducible=True) == ((4.0, True), (4.0, True))


def test_the_reach_is_the_last_distance_before_left_out_runs_are_read_wrongly():
    right, wrong = np.array([0.1, -0.2, 0.1]), np.array([0.1, -0.5, 0.1])
    assert reach_of([(2.0, right), (4.0, right), (8.0, wrong), (16.0, right)]) == (4.0, True)
    assert reach_of([(2.0, right), (4.0, right)]) == (4.0, True)
    assert reach_of([]) == (1.0, False)


def test_an_error_that_is_not_a_number_is_no_test_passed():
    unread, right = np.array([np.nan, 0.1]), np.array([0.1, 0.1])
    assert reach_of([(2.0, np.array([np.nan])), (4.0, unread)]) == (1.0, False)
    assert reach_of([(2.0, right), (4.0, unread), (8.0, right)]) == (2.0, True)


def test_where_the_nearest_left_out_size_is_read_wrongly_the_reach_is_the_part_of_its_distance_that_would_be_right():
    """Twice the median's limit at a distance of 4 is the limit at 2, if the error grows with ln of the distance; the worst run likewise."""
    typical, worst = np.log(TYPICAL), np.log(WORST)
    assert reach_of([(4.0, np.array([2 * typical] * 3))]) == (2.0, False)
    assert reach_of([(4.0, np.array([0.0, 0.0, 2 * worst]))]) == (2.0, False)


@pytest.mark.slow
def test_a_ladder_whose_smallest_size_departs_from_the_law_is_hardly_read_below_its_sizes():
    below, _ = reach(["easy"], ladder(wrong={"0.1": 1.1}), irreducible=True)
    assert 1.0 < below.factor < 1.6


@pytest.mark.slow
def test_a_ladder_whose_largest_size_departs_from_the_law_is_hardly_read_above_its_sizes():
    below, above = reach(["easy"], ladder(wrong={"1.6": 1.07}), irreducible=True)
    assert 1.0 < above.factor < 1.6
    assert below.factor > 1.9


@pytest.mark.slow
def test_one_run_that_is_read_wrongly_ends_the_reach_where_the_median_run_does_not():
    by_task = ladder()
    by_task["easy"].loc[by_task["easy"].index[0], "loss"] *= 1.16
    laws = fit_laws(["easy"], [data_of(by_task["easy"][by_task["easy"]["size"] != str(SIZES[0])])], irreducible=True)
    errors = np.abs(density_errors(laws, [data_of(by_task["easy"][by_task["easy"]["size"] == str(SIZES[0])])], 200.0))
    assert np.exp(np.median(errors)) < TYPICAL < WORST < np.exp(np.max(errors))
    below, _ = reach(["easy"], by_task, irreducible=True)
    assert below.factor < 2.0


def test_with_as_few_sizes_as_a_law_needs_nothing_is_read_beyond_them():
    assert reach(["easy"], ladder(sizes=SIZES[:3]), irreducible=True) == ((1.0, False), (1.0, False))
