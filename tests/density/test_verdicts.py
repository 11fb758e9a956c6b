"""When a ratio is a verdict: p from draws, the false-discovery rate over a study, the items that would decide, means over tasks."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.density import Measured, Reference, assess
from compresslab.density.intervals import LogEstimate, adjusted, geometric_mean, p_value, precision_mean, ratio, spread, verdict
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Interval, ItemScores, Shape, Size

REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
CONFIG = DensityConfig(resamples=1000)
POWER = 1.96 + 0.84
NORMAL = np.random.default_rng(0).normal(size=4000)


def sized(n):
    return Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)


def simulate(name, n_hat, n, parent="base", seed=0, items=300, copies=1):
    """A variant with the reference's losses at n_hat; items are as hard for everyone. `copies` repeats the same items, under new names."""
    common, rng = np.random.default_rng(1), np.random.default_rng([seed, 2])
    hard = common.lognormal(-0.125, 0.5, items)
    loss, _ = REFERENCE.predict("arc_easy", n_hat, 1e12)
    own = hard * rng.lognormal(-0.005, 0.1, items)
    answered = ItemScores(
        task="arc_easy",
        item=[str(i) for i in range(items * copies)],
        bits_per_byte=np.tile(loss * own, copies).tolist(),
        correct=[float(i % 2) for i in range(items * copies)],
        choice=[0] * items * copies,
        gold=[0] * items * copies,
    )
    return Measured(name=name, parent=parent, root="base", size=sized(n), shape=SHAPE, items={"arc_easy": answered})


BASE = simulate("base", 6e8, 600_000_000, parent="")


def compared(variants, name, config=CONFIG):
    return assess([BASE, *variants], config, [])[name][1][0]


@functools.cache
def studies():
    """Six studies, each of a base with twenty children of the same density (other noise each) and one that is far worse."""
    found = []
    for study in range(6):
        base = simulate("base", 6e8, 600_000_000, parent="", seed=100 * study)
        nulls = [simulate(f"null{i}", 5e8, 500_000_000, seed=100 * study + i) for i in range(1, 21)]
        result = assess([base, *nulls, simulate("strong", 1.5e8, 500_000_000, seed=100 * study + 50)], CONFIG, [])
        found.append({name: comparisons[0] for name, (_, comparisons) in result.items() if name != "base"})
    return found


def alone(study, name):
    return verdict(study[name].ratio)


def test_benjamini_and_hochbergs_own_example():
    """The fifteen p values of their paper of 1995 (section 3.2): at 5% the four smallest are discoveries, where Bonferroni gives three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    q = adjusted(p)
    assert sum(value <= 0.05 for value in q) == 4
    assert q[:4] == pytest.approx([0.0015, 0.003, 0.0095, 0.035625])
    assert q[-1] == 1
    assert sum(value * len(p) <= 0.05 for value in p) == 3


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=30))
def test_adjusted_values_are_no_smaller_keep_the_order_and_do_not_depend_on_it(p):
    q = adjusted(p)
    assert all(own <= adj + 1e-12 and adj <= 1 for own, adj in zip(p, q, strict=True))
    ranked = [value for _, value in sorted(zip(p, q, strict=True))]
    assert ranked == sorted(ranked)
    assert adjusted(p[::-1]) == pytest.approx(q[::-1])
    assert max(q) == pytest.approx(max(p)), "the largest is compared with 5% itself"


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=10), st.floats(1e-6, 1))
def test_one_question_more_never_makes_a_smaller_question_surer(p, more):
    assert all(before <= after + 1e-12 for before, after in zip(adjusted(p), adjusted([*p, max(*p, more)]), strict=False))


@given(st.floats(1e-6, 1))
def test_a_single_question_is_not_corrected(p):
    assert adjusted([p]) == [p]


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, -2.0])
def test_p_is_twice_the_smaller_tail(shift):
    draws = NORMAL + shift
    expected = 2 * 0.5 * math.erfc(abs(shift) / math.sqrt(2))
    assert p_value(LogEstimate(shift, draws, draws)) == pytest.approx(expected, rel=0.2, abs=0.02)


def test_p_is_never_below_what_the_draws_can_show_and_silence_shows_nothing():
    assert p_value(LogEstimate(9.0, np.full(999, 9.0), np.full(999, 9.0))) == pytest.approx(2 / 1000)
    assert p_value(LogEstimate(0.0, np.zeros(99), np.zeros(99))) == 1
    assert p_value(LogEstimate(0.0, np.full(99, np.nan), np.full(99, np.nan))) == 1
    half = np.where(np.arange(1000) % 2, 9.0, np.nan)
    assert p_value(LogEstimate(9.0, half, half)) == pytest.approx(2 / 501)


def test_a_bound_that_is_unknown_on_the_deciding_side_has_no_small_p():
    below = LogEstimate(0.5, np.full(999, -np.inf), np.full(999, 0.5), "<")
    assert p_value(below) == 1
    assert p_value(LogEstimate(-0.5, np.full(999, -np.inf), np.full(999, -0.5), "<")) == pytest.approx(2 / 1000)


def test_among_many_children_without_a_difference_the_strong_one_stands():
    for study in studies():
        strong = study["strong"]
        assert strong.verdict == alone(study, "strong") == "lowered"
        assert strong.p <= strong.q <= 0.05
        assert strong.items_needed is None


def test_the_correction_takes_back_most_false_verdicts_that_the_intervals_alone_would_give():
    single = sum(alone(study, name) != "inconclusive" for study in studies() for name in study if name != "strong")
    stand = sum(study[name].verdict != "inconclusive" for study in studies() for name in study if name != "strong")
    assert single >= 2, "without one that looks like a difference this test says nothing"
    assert stand < single
    assert stand <= 0.05 * 100


def test_what_the_correction_takes_back_keeps_its_figures_and_says_why():
    taken = [c for study in studies() for c in study.values() if verdict(c.ratio) != c.verdict]
    assert taken
    for comparison in taken:
        assert comparison.verdict == "inconclusive"
        assert comparison.q > 0.05
        assert not comparison.fragile
        assert comparison.items_needed is not None


def test_the_same_child_is_told_alone_and_not_among_many():
    child = simulate("child", 4.7e8, 600_000_000, seed=5)
    by_itself = compared([child], "child")
    assert by_itself.verdict == "lowered"
    assert by_itself.p == by_itself.q
    among = compared([child, *(simulate(f"n{i}", 6e8, 600_000_000, seed=50 + i) for i in range(25))], "child")
    assert among.ratio == by_itself.ratio
    assert among.p == by_itself.p
    assert among.q > among.p
    assert (among.verdict == "lowered") == (among.q <= 0.05)


def repeated(copies, seed, n_hat=5.6e8, n=600_000_000):
    """The same hundred items `copies` times: the same means, a smaller error."""
    base = simulate("base", 6e8, 600_000_000, parent="", items=100, copies=copies)
    child = simulate("child", n_hat, n, seed=seed, items=100, copies=copies)
    return assess([base, child], DensityConfig(resamples=4000), [])["child"][1][0]
