"""Replicates of a step: r is the mean over them, and their spread stands in place of the reference's scatter."""

import math

import numpy as np
import pytest
from scipy import stats

from compresslab.density import Measured, Reference, assess, compare
from compresslab.density.overlap import leave_out_overlaps
from compresslab.density.references.budget import default_budget
from compresslab.density.sample import prepare
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size, TaskOverlap, TextOverlap

REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
CONFIG = DensityConfig(resamples=1000)
TASKS = ("arc_easy", "csqa", "piqa")
MEAN_HARD = float(np.mean(np.random.default_rng(0).lognormal(-0.02, 0.2, 400)))  # of the items that `model` makes
BASE, CHILD = 1_000_000_000, 700_000_000


def model(name, n_hat, n=CHILD, *, runs=("base", "healed"), seed=0, items=400, **more):
    """A model whose true N_hat is `n_hat`; `seed` draws what is peculiar to it in its items."""
    hard, own = np.random.default_rng(0).lognormal(-0.02, 0.2, items), np.random.default_rng([seed, 1]).lognormal(0, 0.01, items)
    answered = {}
    for task in TASKS:
        loss, score = REFERENCE.predict(task, n_hat, default_budget().at(n_hat))
        answered[task] = ItemScores(
            task=task,
            item=[str(i) for i in range(items)],
            bits_per_byte=(loss * hard * own / own.mean()).tolist(),
            correct=(np.arange(items) < round(score * items)).astype(float).tolist(),
            choice=[0] * items,
            gold=[0] * items,
        )
    size = Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)
    parent = more.pop("parent", "" if name == "base" else "base")
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items=answered, runs=list(runs), **more)


def base():
    return model("base", 1e9, BASE, runs=("base",))


def replicated(sizes, *, step="healed", runs=("base", "healed")):
    """A child with a replicate for each of the true N_hat `sizes`."""
    names = ["child", *(f"child~{number}" for number in range(2, len(sizes) + 1))]
    first = model("child", sizes[0], runs=runs, seed=1, replicates={step: names})
    others = [model(name, n_hat, runs=runs, seed=i, replicate=True) for i, (name, n_hat) in enumerate(zip(names, sizes, strict=True), 1)]
    return [first, *others[1:]]


def compared(*models):
    """The comparison of `child` with the base."""
    return assess([base(), *models], CONFIG, [])["child"][1][0]


def width(interval):
    return math.log(interval.high / interval.low)


def rows(comparison):
    return {row.setting: row for row in comparison.robustness if row.choice == "scatter"}


def test_r_is_the_geometric_mean_over_the_replicates():
    comparison = compared(*replicated([5e8, 6e8, 7.2e8]))
    assert comparison.replicates == 3
    assert comparison.ratio.value == pytest.approx(math.exp(np.mean(np.log(comparison.ratio_of_each))))
    assert comparison.ratio_of_each == pytest.approx([n / 1e9 / 0.7 for n in (5e8, 6e8, 7.2e8)], rel=0.05)
    assert comparison.spread_of_replicates == pytest.approx(np.std(np.log(comparison.ratio_of_each), ddof=1))
    alone = compared(model("child", 5e8, seed=1))
    assert comparison.ratio_of_each[0] == pytest.approx(alone.ratio.value)


def test_the_interval_is_as_wide_as_the_replicates_differ():
    near, far = compared(*replicated([6e8, 6.01e8, 6.02e8])), compared(*replicated([5e8, 6e8, 7.2e8]))
    one = compared(model("child", 6e8, seed=1))
    assert width(near.ratio) * 1.1 < width(one.ratio) < width(far.ratio)
    assert near.runs_apart == far.runs_apart == one.runs_apart == 1


def test_the_draws_of_their_scatter_are_students_t_around_the_mean():
    study = prepare([base(), *replicated([5e8, 6e8, 7.2e8])], DensityConfig(resamples=40_000), [])
    points = np.array([1.0, 1.3, 1.9])
    drawn = study.scatter_between("healed", points, of_mean=True) / (points.std(ddof=1) / math.sqrt(3))
    assert stats.kstest(drawn, stats.t(2).cdf).statistic < 0.01
    of_one = study.scatter_between("healed", points, of_mean=False)
    assert of_one == pytest.approx(drawn * points.std(ddof=1))
    assert study.scatter_between("healed", points * 2 + 7, of_mean=False) == pytest.approx(2 * of_one), "all tasks have the same weights"


def test_both_spreads_are_recorded_and_the_other_one_is_a_row_of_robustness():
    comparison = compared(*replicated([6e8, 6.1e8, 6.2e8]))
    found = rows(comparison)
    of_reference = found["the reference's, not that between the 3 replicates"]
    without = found["these models, no further replicates"]
    assert len(found) == 2
    assert of_reference.ratio.value == without.ratio.value == comparison.ratio.value
    assert width(of_reference.ratio) > width(without.ratio)
    assert width(without.ratio) < width(comparison.ratio)
    assert 0.05 < comparison.spread_of_reference < 0.4
    assert comparison.spread_of_replicates < 0.05


def test_two_replicates_leave_a_wide_interval():
    two, three = compared(*replicated([5.8e8, 6.2e8])), compared(*replicated([5.8e8, 6e8, 6.2e8]))
    assert width(two.ratio) > 2 * width(three.ratio)
    assert two.verdict == "inconclusive"


def test_equal_replicates_show_no_spread_and_the_references_scatter_stays():
    first, second, third = replicated([6e8, 6e8, 6e8])
    second, third = (one.model_copy(update={"items": first.items}) for one in (second, third))
    comparison = compared(first, second, third)
    assert (comparison.replicates, comparison.spread_of_replicates) == (3, None)
    assert comparison.spread_of_reference is not None
    assert width(comparison.ratio) > 1.1 * width(rows(comparison)["these models, no further replicates"].ratio)


def test_a_variant_whose_replicates_all_failed_is_as_without_replicates():
    alone = compared(model("child", 6e8, seed=1))
    left = compared(model("child", 6e8, seed=1, replicates={"healed": ["child"]}))
    assert left == alone


def test_replicates_have_densities_and_no_verdicts_and_change_nobody_elses():
    first, second, third = replicated([5e8, 6e8, 7.2e8])
    other = model("other", 8e8, runs=("base",), seed=9)
    assessed = assess([base(), first, second, third, other], CONFIG, [])
    assert assessed["child~2"][0].params is not None
    assert assessed["child~2"][1] == assessed["child~3"][1] == []
    (plain,) = assess([base(), model("child", 5e8, seed=1), other], CONFIG, [])["other"][1]
    (beside,) = assessed["other"][1]
    assert beside.ratio == plain.ratio
    assert beside.items_needed == plain.items_needed


def test_a_calibrated_step_takes_the_spread_of_its_replicates_and_nothing_of_the_reference():
    comparison = compared(*replicated([5.8e8, 6e8, 6.2e8], step="pruned", runs=("base",)))
    copy = compared(model("child", 6e8, runs=("base",), seed=2))
    assert (comparison.replicates, comparison.runs_apart, comparison.spread_of_reference) == (3, 0, None)
    assert comparison.spread_of_replicates is not None
    assert list(rows(comparison)) == ["these models, no further replicates"]
    assert width(comparison.ratio) > width(copy.ratio)


def test_a_step_after_the_replicated_one_is_compared_without_the_spread():
    first, *others = replicated([5e8, 6e8, 7.2e8])
    packed = model("packed", 4.8e8, seed=1, parent="child", replicates=first.replicates)
    unreplicated = packed.model_copy(update={"replicates": {}})
    to_parent = assess([base(), first, *others, packed], CONFIG, [])["packed"][1][0]
    plain = assess([base(), model("child", 5e8, seed=1), unreplicated], CONFIG, [])["packed"][1][0]
    assert (to_parent.against, to_parent.replicates) == ("child", 0)
    assert to_parent.ratio == plain.ratio


def test_a_model_made_from_the_first_replicate_has_the_scatter_of_one_of_them():
    first, *others = replicated([6e8, 6.1e8, 6.2e8])
    packed = model("packed", 5.8e8, seed=1, parent="child", replicates=first.replicates)
    to_root = assess([base(), first, *others, packed], CONFIG, [])["packed"][1][1]
    alone = assess([base(), model("child", 6e8, seed=1), packed.model_copy(update={"replicates": {}})], CONFIG, [])["packed"][1][1]
    assert (to_root.relation, to_root.replicates, to_root.ratio_of_each) == ("root", 3, [])
    assert to_root.ratio.value == alone.ratio.value
    assert width(to_root.ratio) < width(alone.ratio)
    assert rows(to_root)["the reference's, not that between the 3 replicates"].ratio == alone.ratio
    assert rows(to_root)["these models, no further replicates"].ratio.low > to_root.ratio.low


def test_a_task_on_which_a_replicate_lies_beyond_the_reference_has_the_references_scatter():
    models = replicated([6e8, 6.1e8, 6.2e8])
    study = prepare([base(), *models], CONFIG, [])
    ruler = study.ruler(REFERENCE, default_budget())
    assert study.points(ruler, [one.name for one in models], "piqa", "loss") is not None
    beyond = models[2].items["piqa"]
    beyond = beyond.model_copy(update={"bits_per_byte": [100 * value for value in beyond.bits_per_byte]})
    models[2] = models[2].model_copy(update={"items": {**models[2].items, "piqa": beyond}})
    study = prepare([base(), *models], CONFIG, [])
    assert study.points(ruler, [one.name for one in models], "piqa", "loss") is None
    assert compared(*models).spread_of_replicates is not None


def test_a_replicate_without_results_is_refused():
    first, second, third = replicated([6e8, 6.1e8, 6.2e8])
    with pytest.raises(BadInput, match=r"child: its replicate child~3 is not among the variants"):
        compared(first, second)
    fewer = third.model_copy(update={"items": {"piqa": third.items["piqa"]}})
    with pytest.raises(BadInput, match=r"or answered other tasks"):
        compared(first, second, fewer)


def test_a_model_made_from_a_first_replicate_without_scores_has_the_spread_of_the_others():
    _, *others = replicated([6e8, 6.1e8, 6.2e8])
    packed = model("packed", 5.8e8, seed=1, parent="child", replicates={"healed": ["child~2", "child~3"]})
    (to_root,) = assess([base(), *others, packed], CONFIG, [])["packed"][1]
    assert (to_root.relation, to_root.replicates) == ("root", 2)
    none_left = packed.model_copy(update={"replicates": {"healed": []}})
    assert assess([base(), none_left], CONFIG, [])["packed"][1][0].replicates == 0


def simulated(number, count, *, scatter, noise, studies=150, items=400):
    """Whether the interval of r held the truth, in each of some studies, and its ends' factor.

    Training runs scatter by `scatter` in ln N_hat around a true mean. The losses of each item are drawn anew in each study.
    """
    held, widths = [], []
    for study_number in range(studies):
        random = np.random.default_rng([number, count, study_number])
        hard = random.lognormal(-0.02, 0.2, items)
        models = [base(), *replicated(list(6e8 * np.exp(scatter * random.standard_normal(count))))]
        for place, one in enumerate(models):
            answered = {}
            for task, scores in one.items.items():
                loss = np.mean(scores.bits_per_byte) / MEAN_HARD
                own = hard * random.lognormal(-(noise**2) / 2, noise, items)
                answered[task] = scores.model_copy(update={"bits_per_byte": (loss * own).tolist()})
            models[place] = one.model_copy(update={"items": answered})
        study = prepare(models, DensityConfig(resamples=400), [])
        estimate = study.effective(study.ruler(REFERENCE, default_budget()), "child", "base", TASKS, "loss")
        found = estimate.over(0.7).interval()
        held.append(found.low <= 0.6 / 0.7 <= found.high)
        widths.append(found.high / found.low)
    return np.mean(held), np.median(widths)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "scatter", "noise"), [(3, 0.15, 0.02), (3, 0.15, 0.2), (5, 0.05, 0.1)])
def test_the_interval_holds_the_mean_over_all_seeds(count, scatter, noise):
    held, _ = simulated(0, count, scatter=scatter, noise=noise, studies=100)
    assert held >= 0.89, held  # 95% within two and a half standard errors


if __name__ == "__main__":  # the figures of docs/density.md
    for count in (1, 2, 3, 5):
        for scatter, noise in ((0.15, 0.02), (0.15, 0.2), (0.03, 0.2)):
            held, factor = simulated(7, count, scatter=scatter, noise=noise, studies=300)
            print(f"{count} replicates, runs {scatter}, items {noise}: held {held:.1%}, factor {factor:.2f}", flush=True)


def test_overlapping_items_are_left_out_of_the_replicates_too():
    models = [base(), *replicated([5e8, 6e8, 7.2e8])]
    task = TaskOverlap(task="arc_easy", items=400, words_13=["0", "1"], words_8=["0", "1"])
    leaked = TextOverlap(role="training", source="leak.txt", sha256="0" * 64, variants=["child"], tasks=[task])
    [comparison] = leave_out_overlaps(assess(models, CONFIG, []), models, [leaked], CONFIG)["child"][1]
    [row] = [row for row in comparison.robustness if row.setting == "without 2 items that share 13 words"]
    assert row.ratio.value == pytest.approx(comparison.ratio.value, rel=0.02)


def test_comparing_two_models_alone_takes_no_replicates():
    child = replicated([5e8, 6e8])[0]
    assert compare(child, base(), CONFIG).replicates == 0


def test_more_items_do_not_decide_what_the_replicates_leave_open():
    comparison = compared(*replicated([5e8, 9e8]))
    assert comparison.verdict == "inconclusive"
    assert comparison.items_needed is None
