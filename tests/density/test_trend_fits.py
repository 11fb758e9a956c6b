"""The fits of a rate of growth: what bounds do, and that the intervals hold where the growth is known."""

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.density.intervals import LogEstimate, spread
from compresslab.density.trend.fits import (
    ABOVE,
    BELOW,
    PLAIN,
    History,
    _degrees_of_freedom,
    censored_fit,
    censored_slopes,
    frontier_fit,
    growth,
    quantile_line,
    quantile_slopes,
)
from compresslab.density.trend.models import DatedModel, Reading, line_of_models
from compresslab.density.trend.models import history as history_of

LINES, RELEASES, MODELS = 9, 27, 3


def history(seed, rate=0.0, line=0.5, release=0.4, model=0.5):
    """27 releases of 3 models in 9 lines over two years, with effects of the line, the release and the model on ln density."""
    rng = np.random.default_rng(seed)
    releases = np.repeat(np.arange(RELEASES), MODELS)
    lines = releases % LINES
    days = rng.uniform(0, 730, RELEASES)[releases]
    effects = rng.normal(0, line, LINES)[lines] + rng.normal(0, release, RELEASES)[releases] + rng.normal(0, model, len(releases))
    return plain(days, rate * days + effects, releases, lines)


def plain(days, logs, releases, lines):
    """Models without errors of their own that can be read at any density."""
    zeros, limits = np.zeros(len(days)), np.full(len(days), np.inf)
    whole = zeros.astype(np.int64)
    return History(days, logs, zeros, whole, -limits, limits, np.arange(len(days)), releases, lines, whole)


def cut(one, lowest=-np.inf, highest=np.inf):
    """The history with a bound for each model beyond the limits, which may differ between models."""
    lowest, highest = (np.broadcast_to(limit, len(one.days)) for limit in (lowest, highest))
    sides = np.where(one.logs < lowest, BELOW, np.where(one.logs > highest, ABOVE, PLAIN))
    return changed(one, logs=np.clip(one.logs, lowest, highest), sides=sides, lowest=lowest, highest=highest)


def quantile_slope(one):
    return quantile_line(one)[0]


def censored_slope(one):
    return censored_fit(one)[0]


def kept(one, chosen):
    return History(**{name: values[chosen] for name, values in vars(one).items()})


def changed(one, **changes):
    return History(**(vars(one) | changes))


@given(st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_nine_of_ten_models_lie_below_the_line(seed):
    one = history(seed)
    slope, height = quantile_line(one)
    residuals = one.logs - height - slope * (one.days - one.days.mean())
    assert np.mean(residuals < 1e-9) >= 0.9
    assert np.mean(residuals < -1e-9) <= 0.9


@given(st.integers(0, 50), st.floats(-0.01, 0.01))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("slope", [quantile_slope, censored_slope])
def test_growth_that_is_added_is_found(slope, seed, rate):
    one = history(seed)
    more = changed(one, logs=one.logs + rate * one.days)
    assert slope(more) == pytest.approx(slope(one) + rate, abs=2e-5)


def test_a_bound_on_its_side_of_the_quantile_line_acts_as_the_unknown_value():
    one = history(3)
    slope, height = quantile_line(one)
    below = one.logs < height + slope * (one.days - one.days.mean()) - 0.2
    sides = np.where(below, BELOW, PLAIN)
    assert quantile_slope(changed(one, logs=np.where(below, one.logs - 3, one.logs), sides=sides)) == pytest.approx(slope)


def test_models_denser_than_any_reading_do_not_pull_the_quantile_line_down():
    """Two of three models are too large for their density to be read above a limit that the line passes after half of the time."""
    found = {"cut": [], "as values": []}
    for seed in range(12):
        one = history(seed, rate=0.006, line=0.0, release=0.0)
        bounded = cut(one, highest=np.where(np.arange(len(one.days)) % 3, 2.5, np.inf))
        found["cut"].append(quantile_slope(bounded))
        found["as values"].append(quantile_slope(changed(bounded, lowest=one.lowest, highest=one.highest)))
    assert np.mean(found["cut"]) == pytest.approx(0.006, abs=0.0004)
    assert np.mean(found["as values"]) < 0.0055


@given(st.integers(0, 50), st.floats(-1.0, 0.5), st.floats(0.8, 3.0))
@settings(max_examples=15, deadline=None)
def test_neither_turning_nor_moving_the_quantile_line_makes_it_better(seed, lowest, highest):
    one = cut(history(seed, rate=0.004), lowest, np.where(np.arange(RELEASES * MODELS) % 3, highest, np.inf))
    slope, height = quantile_line(one)
    own = loss(one, slope, height)
    rng = np.random.default_rng(seed)
    for size in (0.001, 0.03, 1.0):
        assert all(loss(one, slope + size * a / 365, height + size * b) > own - 1e-9 for a, b in rng.normal(size=(200, 2)))


@pytest.mark.parametrize("slopes", [quantile_slopes, censored_slopes])
def test_a_weight_of_zero_leaves_a_model_out_and_one_of_two_counts_it_twice(slopes):
    one, models = history(13), np.arange(RELEASES * MODELS)
    weights = np.stack([models % 4 > 0, 1 + (models % 5 == 0)]).astype(float)
    without, doubled = slopes(one, weights)
    alone = np.ones((1, len(models)))
    assert without == pytest.approx(slopes(kept(one, models % 4 > 0), alone[:, models % 4 > 0])[0], rel=1e-3)
    twice = np.concatenate([models, models[models % 5 == 0]])
    assert doubled == pytest.approx(slopes(kept(one, twice), np.ones((1, len(twice))))[0], rel=1e-3)


def loss(one, slope, height):
    residuals = one.logs - np.clip(height + slope * (one.days - one.days.mean()), one.lowest, one.highest)
    return float(np.sum(np.maximum(0.9 * residuals, -0.1 * residuals)))


def test_without_bounds_and_errors_the_censored_likelihood_is_least_squares():
    one = history(4)
    assert censored_slope(one) == pytest.approx(np.polyfit(one.days, one.logs, 1)[0], rel=1e-3)


@pytest.mark.parametrize("side", [BELOW, ABOVE])
def test_the_censored_likelihood_recovers_what_bounds_hide(side):
    """Models at a bound are cut there. Leaving them out, or taking the bound for the value, flattens the line."""
    slopes = {"hidden": [], "left out": [], "as values": []}
    for seed in range(12):
        one = history(seed, rate=0.003, line=0.0, release=0.0)
        limit = float(np.quantile(one.logs, 0.35 if side == BELOW else 0.65))
        hidden = one.logs < limit if side == BELOW else one.logs > limit
        cut = changed(one, logs=np.where(hidden, limit, one.logs), sides=np.where(hidden, side, PLAIN))
        slopes["hidden"].append(censored_slope(cut))
        slopes["left out"].append(censored_slope(kept(one, ~hidden)))
        slopes["as values"].append(censored_slope(changed(cut, sides=one.sides)))
    means = {name: np.mean(values) for name, values in slopes.items()}
    assert means["hidden"] == pytest.approx(0.003, abs=0.0003)
    assert means["left out"] < 0.0024
    assert means["as values"] < 0.0024


def test_a_benchmark_on_which_old_models_are_bounds_does_not_steepen_the_growth():
    """One benchmark of three reads low and cannot be read below a limit. The mean of a model with such a bound is a bound near its value.

    Taken for a bound like any other, its place would say nothing of the value.
    """
    found, by_mean = [], []
    for seed in range(12):
        one = history(seed, rate=0.003, line=0.0, release=0.2)
        rng, heights = np.random.default_rng(seed), np.array([0.0, -0.3, -1.5])
        logs = one.logs[:, None] + heights + rng.normal(0, [0.3, 0.3, 0.6], (len(one.days), 3))
        three = history_of_three(one, logs, lowest=-0.8)
        found.append(censored_slope(three))
        sides = np.where((three.sides == BELOW).reshape(-1, 3).any(axis=1), BELOW, PLAIN)
        by_mean.append(censored_slope(changed(one, logs=three.logs.reshape(-1, 3).mean(axis=1), sides=sides)))
        assert censored_fit(three)[1] == pytest.approx(heights + censored_fit(three)[1].mean() - heights.mean(), abs=0.3)
    assert np.mean(found) == pytest.approx(0.003, abs=0.0002)
    assert np.mean(by_mean) > 0.0035


def history_of_three(one, logs, lowest):
    """The history with three readings a model, bounds below `lowest` on the last benchmark."""
    repeated = {name: np.repeat(values, 3) for name, values in vars(one).items()}
    limits = np.tile([-np.inf, -np.inf, lowest], len(one.days))
    three = History(**(repeated | {"logs": logs.ravel(), "benchmarks": np.tile(np.arange(3), len(one.days))}))
    return cut(three, lowest=limits)


def test_readings_of_one_model_count_as_one_observation():
    """Three equal readings of each model say no more than one of them."""
    one = history(15)
    three = history_of_three(one, np.repeat(one.logs[:, None], 3, axis=1), lowest=-np.inf)
    alone, thrice = growth(one, censored_slopes), growth(three, censored_slopes)
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-5)


def test_the_own_error_of_a_density_is_part_of_the_spread():
    one = history(5, line=0.0, release=0.0)
    assert censored_fit(changed(one, errors=np.full(len(one.days), 0.4)))[2] < censored_fit(one)[2] - 0.1


def test_a_model_with_a_large_error_pulls_less():
    one = history(6)
    logs = one.logs.copy()
    last = int(np.argmax(one.days))
    logs[last] += 5
    errors = np.zeros(len(logs))
    errors[last] = 10
    assert abs(censored_slope(changed(one, logs=logs, errors=errors)) - censored_slope(one)) < 0.2 * abs(
        censored_slope(changed(one, logs=logs)) - censored_slope(one)
    )


@pytest.mark.slow
@pytest.mark.parametrize("slopes", [quantile_slopes, censored_slopes])
def test_the_interval_covers_the_rate_and_the_record_setters_line_always_rises(slopes):
    """`experiments/trend/simulate.py` has the same on hundreds of histories like the real one."""
    count, rate = 20, 0.0
    intervals = [growth(history(100 + seed, rate), slopes) for seed in range(count)]
    assert sum(not one.low <= rate <= one.high for one in intervals) <= 3
    setters = [frontier_fit(one.days, one.logs) for one in (history(100 + seed) for seed in range(count))]
    assert all(fit[0] > 0 for fit in setters if fit is not None)


def test_models_of_one_line_count_as_one_observation():
    """With all spread between lines, an interval that takes models as independent would be far too narrow."""
    one = history(7, line=1.0, release=0.0, model=0.01)
    clustered = growth(one, censored_slopes)
    apart = growth(changed(one, releases=np.arange(len(one.days)), lines=np.arange(len(one.days))), censored_slopes)
    assert clustered.high - clustered.low > 1.5 * (apart.high - apart.low)


def test_the_degrees_of_freedom_are_those_of_the_jackknife_over_many_draws():
    """A chi-square with k degrees of freedom has a variance of 2 k where its mean is k."""
    one, rng = history(11), np.random.default_rng(0)
    lines = np.where(one.lines < 5, 0, one.lines)
    variances = []
    for _ in range(1500):
        logs = rng.normal(size=len(one.days))
        slope = np.polyfit(one.years, logs, 1)[0]
        left_out = [np.polyfit(one.years[lines != line], logs[lines != line], 1)[0] for line in np.unique(lines)]
        variances.append(np.sum((np.array(left_out) - slope) ** 2))
    found = _degrees_of_freedom(one.years, lines)
    assert found == pytest.approx(2 * np.mean(variances) ** 2 / np.var(variances), rel=0.15)
    assert found < 3, "five lines: one has five ninths of the models"


def test_lines_that_do_not_reach_far_in_time_say_little_about_the_error_of_the_growth():
    """Nine lines of nine models each. Where only two of them have early or late models, the slope hangs on those two."""
    alone = np.arange(81)
    lines = alone // 9
    everywhere = np.tile(np.linspace(0, 900, 9), 9)
    narrow = np.where(lines < 2, everywhere, 450 + (everywhere - 450) / 50)
    assert _degrees_of_freedom(everywhere, lines) == pytest.approx(8, rel=0.1)
    assert _degrees_of_freedom(narrow, lines) < 3
    rng = np.random.default_rng(1)
    one = plain(narrow, 0.1 * rng.normal(size=81) + rng.normal(size=9)[lines] * everywhere / 900, alone, lines)
    without = censored_slopes(one, (lines != np.arange(9)[:, None]).astype(float))
    error = np.sqrt(8 / 9 * np.sum((without - censored_slope(one)) ** 2))
    found = growth(one, censored_slopes)
    assert found.high - found.value > 5 * error, "with eight degrees of freedom it would be 2.3 times the error"


def test_growth_without_a_second_date_once_a_line_is_left_out_has_no_interval():
    one = history(12)
    assert growth(changed(one, days=np.where(one.lines == 0, one.days, 300.0)), quantile_slopes) is None


def test_the_error_that_all_models_share_widens_the_interval():
    one = history(8)
    alone, shared = growth(one, censored_slopes), growth(one, censored_slopes, shared_error=0.01)
    assert shared.high - shared.low > 3 * (alone.high - alone.low)
    assert shared.value == alone.value


def test_too_few_lines_of_models_give_no_interval():
    one = history(9)
    assert growth(kept(one, one.lines < 4), quantile_slopes) is None
    assert growth(changed(one, sides=np.full(len(one.days), BELOW)), censored_slopes) is None


@pytest.mark.parametrize(("family", "line"), [("Qwen2.5", "Qwen"), ("Llama-3.1", "Llama"), ("Gemma-2", "Gemma"), ("MPT", "MPT")])
def test_a_line_of_models_is_the_family_without_its_version(family, line):
    assert line_of_models(family) == line


def test_clusters_that_agree_by_chance_do_not_make_the_growth_surer_than_independent_models_would():
    """Every line has the same three models, so no line moves the fit; the models themselves scatter."""
    days, logs = np.tile([0.0, 300.0, 700.0], LINES), np.tile([0.0, 1.5, 0.3], LINES)
    alone = np.arange(len(days))
    lines = alone // 3
    agreeing = plain(days, logs, alone, lines)
    independent = growth(changed(agreeing, lines=alone), censored_slopes)
    found = growth(changed(agreeing, releases=lines), censored_slopes)
    assert found is not None
    assert independent is not None
    assert found.high - found.low >= independent.high - independent.low > 0


def test_a_reading_whose_lower_end_is_unbounded_has_the_error_of_its_upper_end():
    """An MMLU score just above chance: many draws lie below chance, where no size has them."""
    draws = np.concatenate([np.full(200, -np.inf), np.random.default_rng(0).normal(0.0, 1.0, 800)])
    known = LogEstimate(0.0, np.sort(draws), np.sort(draws))
    assert spread(known) == np.inf
    models = [dated("sure", LogEstimate(0.0, np.full(1000, 0.0), np.full(1000, 0.0))), dated("near chance", known)]
    errors = history_of(models).errors
    assert errors[1] == pytest.approx(np.quantile(draws, 0.84), rel=0.02)


def dated(name, estimate):
    whole = Reading(estimate, estimate.lower)
    return DatedModel(name, name, datetime.date(2022, 5, 2), 1e8, "table", whole, {"MMLU": whole}, (-np.inf, np.inf), 0.26)
