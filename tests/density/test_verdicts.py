"""When a ratio is a verdict: p from draws, the false-discovery rate over a study, the items that would decide, means over tasks."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.density import Measured, Reference, assess
from compresslab.density.intervals import DrawnCount, LogEstimate, adjusted, geometric_mean, p_value, ratio, spread, verdict
from compresslab.density.references.budget import default_budget
from compresslab.density.sample import headline_count
from compresslab.density.synthesis import synthesize
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
    """A copy of the base with the reference's losses at n_hat; items are as hard for all. `copies` repeats the items under new names."""
    common, rng = np.random.default_rng(1), np.random.default_rng([seed, 2])
    hard = common.lognormal(-0.125, 0.5, items)
    loss, _ = REFERENCE.predict("arc_easy", n_hat, default_budget().at(n_hat))
    own = hard * rng.lognormal(-0.005, 0.1, items)
    answered = ItemScores(
        task="arc_easy",
        item=[str(i) for i in range(items * copies)],
        bits_per_byte=np.tile(loss * own, copies).tolist(),
        correct=[float(i % 2) for i in range(items * copies)],
        choice=[0] * items * copies,
        gold=[0] * items * copies,
    )
    return Measured(name=name, parent=parent, root="base", size=sized(n), shape=SHAPE, items={"arc_easy": answered}, runs=["base"])


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


def by_bits(variant, bits):
    return variant.model_copy(update={"shape": variant.shape.model_copy(update={"weight_bits": bits})})


def test_one_family_holds_all_verdicts_of_the_column_whatever_each_of_them_counts():
    """Eight pruned children (by parameters) and eight quantized ones (by bits): q is over sixteen, as the reader counts them."""
    pruned = [simulate(f"pruned{i}", 5e8, 500_000_000, seed=i) for i in range(1, 9)]
    packed = [by_bits(simulate(f"packed{i}", 3e8, 600_000_000, seed=20 + i), 8.0) for i in range(1, 9)]
    found = {name: compared[0] for name, (_, compared) in assess([BASE, *pruned, *packed], CONFIG, []).items() if name != "base"}
    assert {one.count for one in found.values()} == {"params", "bits"}
    expected = dict(zip(found, adjusted([one.p for one in found.values()]), strict=True))
    for name, one in found.items():
        assert one.q == pytest.approx(expected[name])
        assert one.headline[1] == (verdict(one.headline[0]) if one.q <= 0.05 else "inconclusive")


def test_against_the_root_the_family_has_the_children_of_the_root_too():
    child = simulate("child", 5e8, 500_000_000, seed=1)
    leaf = simulate("leaf", 4e8, 450_000_000, parent="child", seed=2)
    found = assess([BASE, child, leaf], CONFIG, [])
    against_root = found["leaf"][1][1]
    assert against_root.relation == "root"
    assert against_root.q == pytest.approx(adjusted([found["child"][1][0].p, against_root.p])[1])


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


def test_p_counts_the_smaller_tail_and_silence_shows_nothing():
    two = 2 + NORMAL[:999]
    count = 2 * (1 + np.sum(two <= 0)) / 1000
    assert p_value(LogEstimate(2.0, two, two)) == pytest.approx(count)
    assert p_value(LogEstimate(0.0, np.zeros(99), np.zeros(99))) == 1
    assert p_value(LogEstimate(0.0, np.full(99, np.nan), np.full(99, np.nan))) == 1
    half = np.where(np.arange(1000) % 2, 9.0, np.nan)
    assert p_value(LogEstimate(9.0, half, half)) < 2 / 501
    mostly = np.where(np.arange(1000) % 3, np.nan, 9.0)
    assert p_value(LogEstimate(9.0, mostly, mostly)) == 1


def test_where_no_draw_reaches_one_the_tail_is_a_normal_curves():
    six = 6 + NORMAL[:999]
    assert p_value(LogEstimate(6.0, six, six)) == pytest.approx(math.erfc(6 / spread(plain(six)) / math.sqrt(2)))


def test_a_bound_that_is_unknown_on_the_deciding_side_has_no_small_p():
    below = LogEstimate(0.5, np.full(999, -np.inf), np.full(999, 0.5), "<")
    assert p_value(below) == 1
    assert p_value(LogEstimate(-0.5, np.full(999, -np.inf), np.full(999, -0.5), "<")) == pytest.approx(2 / 1000)


@pytest.mark.slow
def test_among_many_children_without_a_difference_the_strong_one_stands():
    for study in studies():
        strong = study["strong"]
        assert strong.verdict == alone(study, "strong") == "lowered"
        assert strong.p <= strong.q <= 0.05
        assert strong.items_needed is None


@pytest.mark.slow
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


@pytest.mark.parametrize(("seed", "n_hat"), [(4, 5.2e8), (5, 5.6e8), (11, 5.6e8), (12, 5.6e8)])
def test_with_the_items_needed_the_verdict_is_there(seed, n_hat):
    """And not by luck: ln r is then 2.8 of its standard errors away from 0, which is a chance of 80%."""
    few = repeated(1, seed, n_hat)
    assert few.verdict == "inconclusive"
    assert few.items_needed > 100
    copies = math.ceil(few.items_needed / 100)
    enough = repeated(copies, seed, n_hat)
    assert enough.verdict == "lowered"
    error = math.log(enough.ratio.high / enough.ratio.low) / (2 * 1.96)
    assert abs(math.log(enough.ratio.value)) / error == pytest.approx(POWER, rel=0.15)


def test_four_times_the_items_still_need_as_many():
    few, more = repeated(1, 13), repeated(4, 13)
    assert few.ratio.value == pytest.approx(more.ratio.value)
    assert more.verdict == "inconclusive"
    assert more.items_needed == pytest.approx(few.items_needed, rel=0.5)


def test_no_number_of_items_decides_what_the_ruler_itself_leaves_open():
    """A child of another size hangs on the slope of the ruler; a difference of nothing is never decided."""
    assert repeated(10, 3, n_hat=3e9, n=3_600_000_000).items_needed == math.inf
    assert repeated(1, 3, n_hat=2e8, n=150_000_000).items_needed == math.inf
    base = simulate("base", 6e8, 600_000_000, parent="")
    same = base.model_copy(update={"name": "same", "parent": "base"})
    assert assess([base, same], CONFIG, [])["same"][1][0].items_needed == math.inf


def test_few_items_do_not_hide_that_the_ruler_leaves_it_open():
    few, many = (repeated(copies, 3, n_hat=3e9, n=3_600_000_000) for copies in (1, 10))
    assert few.ratio.value == pytest.approx(many.ratio.value)
    assert few.items_needed == many.items_needed == math.inf


def test_an_undecided_ratio_never_needs_fewer_items_than_it_has():
    child = simulate("child", 5.3e8, 600_000_000, seed=8)
    among = compared([child, *(simulate(f"n{i}", 6e8, 600_000_000, seed=50 + i) for i in range(25))], "child")
    assert among.verdict == "inconclusive"
    assert among.items_needed > 300


def test_what_no_draw_contradicts_is_a_verdict_however_many_variants_there_are():
    nulls = [simulate(f"null{i}", 6e8, 600_000_000, seed=50 + i) for i in range(7)]
    far = simulate("far", 1e8, 600_000_000, seed=9)
    assert compared([far, *nulls], "far", DensityConfig(resamples=200)).verdict == "lowered"


def plain(draws, point=0.0):
    return LogEstimate(point, draws + point, draws + point)


def silent(share, draws=NORMAL):
    return np.where(np.random.default_rng(1).random(len(draws)) < share, np.nan, draws)


def test_draws_that_leave_all_sizes_are_silent_in_a_ratio():
    child, parent = NORMAL.copy(), 0.1 * NORMAL[::-1]
    child[:400], parent[300:600] = np.inf, -np.inf
    found = ratio(LogEstimate(0.0, child, child), LogEstimate(0.0, parent, parent))
    assert np.isnan(found.lower).sum() == np.isnan(found.upper).sum() == 600
    assert math.isfinite(found.interval().high)
    assert found.interval().high == pytest.approx(math.exp(1.96), rel=0.25)


def test_a_ratio_that_most_draws_are_silent_on_is_unknown():
    for share, known in ((0.45, True), (0.55, False)):
        interval = plain(silent(share)).interval()
        assert ((interval.low, interval.high) == (0, math.inf)) != known
        assert interval.value == 1


def test_a_geometric_mean_lets_the_parts_speak_that_have_something_to_say():
    whole, gaps = plain(NORMAL), plain(silent(0.4))
    assert np.array_equal(geometric_mean([whole, gaps]).lower, NORMAL)
    both = geometric_mean([gaps, gaps])
    assert np.array_equal(np.isnan(both.lower), np.isnan(gaps.lower))
    assert geometric_mean([whole, plain(silent(1.0))]).interval() == whole.interval()


@given(st.floats(0.01, 3), st.integers(0, 800))
def test_the_spread_is_a_standard_deviation_that_a_few_endless_draws_do_not_spoil(scale, endless):
    draws = scale * NORMAL
    draws[: endless // 2], draws[endless // 2 : endless] = np.inf, -np.inf
    assert scale * 0.9 <= spread(plain(draws)) <= scale * 1.6


PARTS = st.lists(st.tuples(st.floats(-5, 5), st.floats(0.001, 2), st.sampled_from(["", "<", ">"])), min_size=1, max_size=4)


@given(PARTS)
def test_the_ends_of_every_mean_are_ordered_and_hold_its_value(parts):
    unknown = np.full(200, np.inf)
    estimates = [
        LogEstimate(point, -unknown if bound == "<" else d, unknown if bound == ">" else d, bound)
        for (point, scale, bound), k in zip(parts, range(4), strict=False)
        for d in [point + scale * np.roll(NORMAL[:200], 7 * k)]
    ]
    synthesis = synthesize(estimates)
    for mean in (geometric_mean(estimates), None if synthesis is None else synthesis.mean):
        if mean is not None:
            interval = mean.interval()
            assert 0 <= interval.low <= interval.value <= interval.high
            assert (interval.low == 0) >= (interval.bound == "<")
            assert (interval.high == math.inf) >= (interval.bound == ">")


def test_an_interval_must_clear_one_by_more_than_rounding():
    for low, high, expected in ((1.01, 2, "raised"), (1, 2, "inconclusive"), (0.5, 0.99, "lowered"), (0.5, 1, "inconclusive")):
        assert verdict(Interval(value=(low + high) / 2, low=low, high=high)) == expected
    assert verdict(Interval(value=1 + 1e-12, low=1 + 1e-12, high=1 + 1e-12)) == "inconclusive"
    assert verdict(None) == "inconclusive"


def test_the_p_by_time_is_not_that_of_the_quality_alone() -> None:
    draws = np.random.default_rng(0).normal(0.4, 0.05, 1000)
    quality = LogEstimate(0.4, draws, draws, student=(0.05, 4.0))
    uncertain = DrawnCount(0.0, np.random.default_rng(1).normal(0.0, 1.0, 1000))
    assert p_value(quality) < 0.01
    assert p_value(quality.over(uncertain)) > 0.3


@pytest.mark.parametrize(
    ("child", "parent", "expected"),
    [
        ((15e9, 3e9, 16), (30e9, 3e9, 16), "params"),
        ((30e9, 3e9, 16), (30e9, 30e9, 16), "active"),
        ((30e9, 3e9, 4), (30e9, 3e9, 16), "bits"),
    ],
)
def test_the_headline_counts_what_was_changed(child: tuple[float, ...], parent: tuple[float, ...], expected: str) -> None:
    def of(total: float, active: float, bits: float) -> Measured:
        size = Size(parameters=int(total), counted=int(total), active=int(active), nonzero=int(total), stored_bytes=1, effective_bits=bits)
        return Measured(name="m", root="m", size=size, shape=SHAPE.model_copy(update={"weight_bits": bits}))

    assert headline_count(of(*child), of(*parent)) == expected
