"""Densities, ratios and verdicts of a study."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.density import Measured, Reference, assess, density_days, load_hardware
from compresslab.density.intervals import LogEstimate, bounded_reading, geometric_mean, ratio, verdict
from compresslab.density.references.budget import default_budget
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Comparison, Density, Interval, ItemScores, Shape, Size

REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
CONFIG = DensityConfig(resamples=500)
TASKS = ("arc_easy", "csqa", "piqa")


def size(n, bits=16.0):
    return Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=int(n * bits / 8), effective_bits=bits)


def scores(task, bpb, correct, item=None):
    n = len(correct)
    return ItemScores(
        task=task,
        item=item or [str(i) for i in range(n)],
        bits_per_byte=None if bpb is None else list(map(float, bpb)),
        correct=list(map(float, correct)),
        choice=[0] * n,
        gold=[0] * n,
    )


def simulate(name, n_hat, n, parent="", root="base", items=200, seed=0, tasks=TASKS, hard=0, spread=0.15, own=0.08, bits=16.0):
    """A copy of the base whose loss is the reference's at n_hat parameters; items share their hardness (`hard` seeds it)."""
    common, rng = np.random.default_rng([hard, 1]), np.random.default_rng([seed, 2])
    answered = {}
    for task in tasks:
        loss, score = REFERENCE.predict(task, n_hat, default_budget().at(n_hat))
        factor = common.lognormal(-(spread**2) / 2, spread, items) * rng.lognormal(-(own**2) / 2, own, items)
        answered[task] = scores(task, loss * factor, common.random(items) < score)
    return Measured(
        name=name,
        parent=parent,
        root=root,
        size=size(n, bits),
        shape=SHAPE.model_copy(update={"weight_bits": bits}),
        items=answered,
        runs=["base"],
    )


def only(result, name="child"):
    density, comparisons = result[name]
    assert len(comparisons) == 1
    return density, comparisons[0]


def test_a_smaller_and_much_worse_model_lowered_its_density():
    base, child = simulate("base", 6e8, 800_000_000), simulate("child", 1.2e8, 680_000_000, "base", seed=1)
    result = assess([base, child], CONFIG, [load_hardware("rtx-4090")])
    density, comparison = only(result)
    assert isinstance(density, Density)
    assert isinstance(comparison, Comparison)
    assert result["base"][1] == []
    assert (comparison.against, comparison.relation, comparison.verdict) == ("base", "parent", "lowered")
    assert comparison.ratio.value == pytest.approx(1.2e8 / 6e8 * 800 / 680, rel=0.15)
    assert comparison.ratio.low < comparison.ratio.value < comparison.ratio.high < 1
    assert comparison.ratio.extrapolated
    assert comparison.density_days.value == pytest.approx(math.log(comparison.ratio.value) / 0.007)
    assert density.params.value == pytest.approx(density.effective_by_loss.value / 680_000_000)
    assert density.effective_by_loss.value == pytest.approx(1.2e8, rel=0.15)
    assert set(density.time) == set(density.modelled_seconds) == set(comparison.ratio_time) == set(comparison.verdict_time) == {"rtx-4090"}


def test_a_smaller_model_that_is_as_good_raised_its_density():
    base = simulate("base", 3e8, 400_000_000)
    child = base.model_copy(update={"name": "child", "parent": "base", "size": size(300_000_000)})
    _, comparison = only(assess([base, child], CONFIG, []))
    assert comparison.verdict == comparison.verdict_by_score == "raised"
    assert comparison.ratio.value == pytest.approx(4 / 3)


def test_a_copy_of_the_parent_is_inconclusive_at_exactly_one():
    base = simulate("base", 3e8, 400_000_000)
    child = base.model_copy(update={"name": "child", "parent": "base"})
    _, comparison = only(assess([base, child], CONFIG, [load_hardware("h20")]))
    assert comparison.verdict == comparison.verdict_by_score == comparison.verdict_bits == "inconclusive"
    assert comparison.ratio.value == pytest.approx(1)
    assert comparison.tasks[0].bits_per_byte == Interval(value=0, low=0, high=0)
    assert comparison.tasks[0].accuracy.high == pytest.approx(3 / 200)


def test_quantization_that_costs_little_raises_density_by_bits_only():
    base = simulate("base", 3e8, 400_000_000)
    child = simulate("child", 2.6e8, 400_000_000, "base", seed=3, own=0.02, bits=4.5)
    _, comparison = only(assess([base, child], CONFIG, []))
    assert (comparison.verdict, comparison.verdict_bits) == ("lowered", "raised")
    assert comparison.ratio_bits.value == pytest.approx(comparison.ratio.value * 16 / 4.5)
    assert comparison.count == "bits"
    assert comparison.headline == (comparison.ratio_bits, "raised")


def test_a_grandchild_is_compared_with_parent_and_root():
    chain = [simulate("base", 3e8, 400_000_000), simulate("a", 2e8, 300_000_000, "base"), simulate("b", 2e8, 300_000_000, "a")]
    result = assess(chain, CONFIG, [])
    assert [(c.against, c.relation) for c in result["b"][1]] == [("a", "parent"), ("base", "root")]
    assert [(c.against, c.relation) for c in result["a"][1]] == [("base", "parent")]


def test_a_missing_parent_leaves_the_comparison_with_the_root():
    result = assess([simulate("base", 3e8, 400_000_000), simulate("b", 2e8, 300_000_000, "a")], CONFIG, [])
    assert [(c.against, c.relation) for c in result["b"][1]] == [("base", "root")]


def test_another_variant_changes_no_figure_and_the_seed_decides_all():
    base, child = simulate("base", 3e8, 400_000_000), simulate("child", 2e8, 300_000_000, "base", seed=1)
    alone = assess([base, child], CONFIG, [])
    among = assess([simulate("other", 1e8, 200_000_000, "base", seed=2), child, base], CONFIG, [])
    assert among["child"][0].effective_by_loss.value == pytest.approx(alone["child"][0].effective_by_loss.value)
    assert among["child"][1][0].ratio.low == pytest.approx(alone["child"][1][0].ratio.low)
    assert assess([base, child], CONFIG, []) == alone
    assert assess([base, child], DensityConfig(resamples=500, seed=1), [])["child"][1][0].ratio.low != alone["child"][1][0].ratio.low


def test_a_variant_whose_answers_are_all_wrong_changes_no_figure_of_another_one():
    base = simulate("base", 3e8, 400_000_000)
    wrong = {task: scores.model_copy(update={"correct": [0.0] * 200}) for task, scores in base.items.items()}
    lost, other = (base.model_copy(update={"name": name, "parent": "base", "items": wrong}) for name in ("lost", "other"))
    alone, among = assess([base, lost], CONFIG, []), assess([other, base, lost], CONFIG, [])
    assert among["lost"][0].effective_by_score == alone["lost"][0].effective_by_score
    assert among["lost"][1][0].tasks == alone["lost"][1][0].tasks


def test_a_task_that_the_reference_lacks_keeps_its_differences():
    base, child = simulate("base", 3e8, 400_000_000), simulate("child", 1e8, 300_000_000, "base", seed=1)
    base, child = (v.model_copy(update={"items": {"mine": v.items["csqa"].model_copy(update={"task": "mine"})}}) for v in (base, child))
    density, comparison = only(assess([base, child], CONFIG, [load_hardware("h20")]))
    assert density.effective_by_loss is None
    assert density.time == {}
    assert "no task mine" in density.tasks[0].reason
    assert comparison.ratio is None
    assert comparison.density_days is None
    assert comparison.verdict == "inconclusive"
    assert comparison.tasks[0].bits_per_byte.low > 0


def test_a_task_without_gold_continuations_is_read_by_score():
    base, child = simulate("base", 6e8, 400_000_000), simulate("child", 5e8, 300_000_000, "base")
    base, child = (
        v.model_copy(update={"items": {"csqa": v.items["csqa"].model_copy(update={"bits_per_byte": None})}}) for v in (base, child)
    )
    density, comparison = only(assess([base, child], CONFIG, []))
    assert density.effective_by_loss is None
    assert density.params_by_score is not None
    assert "no gold continuation" in density.tasks[0].reason
    assert comparison.estimator == "score"
    assert comparison.ratio_by_score is not None
    assert comparison.tasks[0].bits_per_byte is None


def test_a_model_below_the_ruler_is_a_bound_that_can_only_lower():
    base, child = simulate("base", 1e8, 134_500_000), simulate("child", 2e6, 113_300_000, "base", seed=1)
    density, comparison = only(assess([base, child], CONFIG, []))
    assert density.params.bound == comparison.ratio.bound == comparison.density_days.bound == "<"
    assert comparison.ratio.low == 0
    assert comparison.density_days.low == -math.inf
    assert comparison.verdict == "lowered"
    assert "is a bound" in density.tasks[0].reason
    shrunk = child.model_copy(update={"size": size(1_000_000)})
    assert only(assess([base, shrunk], CONFIG, []))[1].verdict == "inconclusive"


def test_two_models_below_the_ruler_cannot_be_compared():
    base, child = simulate("base", 2e6, 134_500_000), simulate("child", 1e6, 100_000_000, "base", seed=1)
    _, comparison = only(assess([base, child], CONFIG, []))
    assert comparison.ratio is None
    assert comparison.verdict == "inconclusive"
    assert comparison.tasks[0].bits_per_byte.low > 0


@pytest.mark.parametrize(("items", "why"), [(1, "1 items are too few"), (9, "9 items are too few")])
def test_too_few_items_give_no_density_and_no_verdict(items, why):
    base, child = simulate("base", 3e8, 400_000_000, items=items), simulate("child", 1e8, 300_000_000, "base", items=items)
    density, comparison = only(assess([base, child], CONFIG, []))
    assert density.effective_by_loss is None
    assert why in density.tasks[0].reason
    assert (comparison.ratio, comparison.verdict) == (None, "inconclusive")
    assert comparison.tasks[0].bits_per_byte is None
    assert (comparison.tasks[0].accuracy.low, comparison.tasks[0].accuracy.high) == (-1, 1)


def test_losses_that_are_all_equal_give_no_density_and_scores_a_bound():
    base = simulate("base", 3e8, 400_000_000, tasks=("piqa",))
    flat = scores("piqa", [1.0] * 200, [1.0] * 200)
    child = base.model_copy(update={"name": "child", "parent": "base", "items": {"piqa": flat}})
    density, comparison = only(assess([base, child], CONFIG, []))
    assert density.effective_by_loss is None
    assert density.effective_by_score.bound == ">"
    assert "same value" in density.tasks[0].reason
    assert (comparison.verdict, comparison.verdict_by_score) == ("inconclusive", "raised")


def broken(**change):
    base = simulate("base", 3e8, 400_000_000, items=20, tasks=("piqa",))
    child = base.model_copy(update={"name": "child", "parent": "base", "items": {"piqa": base.items["piqa"].model_copy(update=change)}})
    return [base, child]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_hash": ["a"] * 19}, "20 items, but 19 hashes of prompts"),
        ({"item": ["0"] * 20}, "item 0 stands there twice"),
        ({"bits_per_byte": [1.0] * 19 + [float("nan")]}, "child, piqa: bits_per_byte of item 19 is nan"),
        ({"bits_per_byte": [1.0] * 19 + [-1.0]}, "bits_per_byte of item 19 is -1"),
        ({"bits_per_byte": [float("inf")] * 20}, "bits_per_byte of item 0 is inf"),
        ({"correct": [2.0] * 20}, "correct of item 0 is 2"),
        ({"correct": [1.0] * 19}, "20 items, but 19 values of correct"),
        ({"item": []}, "no items"),
    ],
)
def test_results_that_are_no_results_are_named(change, message):
    with pytest.raises(BadInput, match=message):
        assess(broken(**change), CONFIG, [])


def test_studies_that_contradict_themselves_are_named():
    base, child = broken()
    with pytest.raises(BadInput, match="same name"):
        assess([base, base], CONFIG, [])
    with pytest.raises(BadInput, match="nothing pairs them"):
        assess([base, child.model_copy(update={"items": {}})], CONFIG, [])
    with pytest.raises(BadInput, match="no reference 'olmo'"):
        assess([base], DensityConfig(reference="olmo"), [])
    with pytest.raises(BadInput, match="0 parameters"):
        assess([base.model_copy(update={"size": size(0)})], CONFIG, [])


@pytest.mark.slow
def test_the_interval_covers_a_known_truth_and_no_difference_gives_few_verdicts():
    """120 studies: items drawn anew, the model's true N_hat known. The fit's own uncertainty comes on top, hence mostly more than 95%."""
    config, covered, verdicts, truth = DensityConfig(resamples=300), 0, 0, 0.7 * 4 / 3
    for study in range(120):
        base = simulate("base", 3e8, 400_000_000, seed=3 * study, hard=study)
        child = simulate("child", 2.1e8, 300_000_000, "base", seed=3 * study + 1, hard=study)
        same = simulate("same", 3e8, 400_000_000, "base", seed=3 * study + 2, hard=study)
        result = assess([base, child, same], config, [])
        interval = result["child"][1][0].ratio
        covered += interval.low <= truth <= interval.high
        verdicts += result["same"][1][0].verdict != "inconclusive"
    assert covered >= 0.90 * 120
    assert verdicts <= 0.10 * 120


def test_six_variants_take_less_than_two_seconds_of_a_processor():
    variants = [simulate("base", 1e9, 1_345_000_000)]
    variants += [simulate(f"v{i}", 1e9 / i, 1_345_000_000 // i, "base" if i == 1 else "v1", seed=i) for i in range(1, 6)]
    start = time.process_time()
    assess(variants, DensityConfig(resamples=2000), [load_hardware("rtx-4090"), load_hardware("h20")])
    assert time.process_time() - start < 2


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.3, 3), n_hat=st.floats(2e8, 2e9))
def test_r_does_not_depend_on_the_unit_of_the_reference(factor, n_hat):
    """Reading child and parent on a ruler whose sizes are all multiplied leaves their ratio, interval and verdict."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.2, (2, 400)) + np.log([[n_hat], [n_hat * 0.7]])
    fitted, limits = (1.9e8, 3.2e9), (5e7, 8e9)
    found = []
    for scale in (1.0, factor):
        shift = math.log(scale)
        parent, child = (
            bounded_reading(math.log(n) + shift, d + shift, (fitted[0] * scale, fitted[1] * scale), (limits[0] * scale, limits[1] * scale))
            for n, d in zip((n_hat, 0.7 * n_hat), draws, strict=True)
        )
        found.append(ratio(child, parent).over(0.5).interval())
    assert found[0].value == pytest.approx(found[1].value)
    assert found[0].low == pytest.approx(found[1].low)
    assert found[0].high == pytest.approx(found[1].high)
    assert verdict(found[0]) == verdict(found[1])


ESTIMATES = st.builds(
    lambda point, draws: bounded_reading(point, np.array(draws), (1.0, 10.0), (0.05, 200.0)),
    st.one_of(st.floats(-20, 20), st.sampled_from([math.inf, -math.inf])),
    st.lists(st.one_of(st.floats(-20, 20), st.sampled_from([math.inf, -math.inf])), min_size=5, max_size=5),
)


@given(st.lists(st.tuples(ESTIMATES, ESTIMATES), min_size=1, max_size=4))
def test_whatever_the_bounds_the_ends_are_ordered_and_no_number_is_nan(pairs):
    ratios = [r for r in (ratio(child, parent) for child, parent in pairs) if r is not None]
    for estimate in [*ratios, *([mean] if (mean := geometric_mean(ratios)) is not None else [])]:
        interval = estimate.interval()
        assert 0 <= interval.low <= interval.value <= interval.high
        assert math.isfinite(interval.value)
        assert not (interval.bound == "<" and verdict(interval) == "raised")
        assert not (interval.bound == ">" and verdict(interval) == "lowered")


def test_bounds_on_both_sides_leave_a_mean_unknown():
    draws = np.zeros(10)
    low, high = bounded_reading(-9.0, draws, (1.0, 10.0), (0.05, 200.0)), bounded_reading(19.0, draws, (1.0, 10.0), (0.05, 200.0))
    assert (low.bound, high.bound) == ("<", ">")
    assert geometric_mean([low, high]) is None
    assert geometric_mean([]) is None
    assert ratio(low, low) is None
    assert isinstance(ratio(low, high), LogEstimate)


def test_density_days_of_a_doubling():
    assert density_days(Interval(value=2, low=1, high=4)).value == pytest.approx(99.02, abs=0.01)
    assert density_days(None) is None


def asked(variant, hashes):
    """The variant with noted prompts: of each task's items these hashes."""
    items = {task: scores.model_copy(update={"prompt_hash": hashes(task, scores.item)}) for task, scores in variant.items.items()}
    return variant.model_copy(update={"items": items})


def test_items_that_were_other_questions_pair_nothing():
    base, child = simulate("base", 1e9, 1e9), simulate("child", 5e8, 9e8, "base", seed=1)
    base = asked(base, lambda task, items: [f"{task}/{item}" for item in items])
    same = asked(child, lambda task, items: [f"{task}/{item}" for item in items])
    changed = asked(child, lambda task, items: [f"{task}/{item}{'!' * (task == 'csqa' and item == '7')}" for item in items])
    _, alike = only(assess([base, same], CONFIG, []))
    _, left_out = only(assess([base, changed], CONFIG, []))
    assert [one.task for one in alike.tasks] == ["arc_easy", "csqa", "piqa"]
    assert alike.reason == ""
    assert [one.task for one in left_out.tasks] == ["arc_easy", "piqa"]
    assert "csqa is left out: child and base were asked different questions under the same names, first in item 7" in left_out.reason
    assert left_out.ratio != alike.ratio


def test_a_task_that_pairs_two_variants_wrongly_is_left_out_for_all_of_them():
    """Else a density falls where its ratio rises: the one would rest on more tasks than the other."""
    base, child = simulate("base", 1e9, 1e9), simulate("child", 5e8, 9e8, "base", seed=1)
    other, grandchild = simulate("other", 6e8, 9e8, "base", seed=2), simulate("grandchild", 4e8, 8e8, "child", seed=3)
    whole = assess([base, child, other, grandchild], CONFIG, [])
    renamed = child.items["csqa"].model_copy(update={"item": [f"new-{item}" for item in child.items["csqa"].item]})
    changed = child.model_copy(update={"items": {**child.items, "csqa": renamed}})
    assessed = assess([base, changed, other, grandchild], CONFIG, [])
    for name, (density, comparisons) in assessed.items():
        assert [one.task for one in density.tasks] == ["arc_easy", "piqa"], name
        for comparison in comparisons:
            assert [one.task for one in comparison.tasks] == ["arc_easy", "piqa"], name
            assert "csqa is left out" in comparison.reason
    assert assessed["other"][1][0].ratio != whole["other"][1][0].ratio


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": [str(i) for i in range(19, -1, -1)]}, "did not answer the same items (20 and 20; they differ from number 1 on)"),
        ({"gold": [1] * 20}, "have different right answers"),
    ],
)
def test_items_that_are_others_cost_the_task_and_not_the_study(change, message):
    _, comparison = only(assess(broken(**change), CONFIG, []))
    assert (comparison.ratio, comparison.tasks) == (None, [])
    assert comparison.reason == f"piqa is left out: child and base {message}; evaluate both in a new store"


def test_items_without_a_noted_hash_pair():
    _, plain = only(assess(broken(), CONFIG, []))
    _, noted = only(assess(broken(prompt_hash=[""] * 20), CONFIG, []))
    assert [one.task for one in noted.tasks] == ["piqa"]
    assert noted.ratio == plain.ratio


def test_where_all_questions_differ_there_is_no_ratio():
    base, child = simulate("base", 1e9, 1e9), simulate("child", 5e8, 9e8, "base", seed=1)
    base, child = (asked(one, lambda _, items, one=one: [one.name] * len(items)) for one in (base, child))
    _, comparison = only(assess([base, child], CONFIG, []))
    assert (comparison.ratio, comparison.verdict, comparison.tasks) == (None, "inconclusive", [])
    assert "asked different questions" in comparison.reason
