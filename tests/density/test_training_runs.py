"""The scatter between training runs in r: one for each run that lies behind one of the two models and not behind the other."""

import math

import numpy as np
import pytest

from compresslab.density import Measured, Reference, assess
from compresslab.density.references.budget import default_budget
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size

REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
CONFIG = DensityConfig(resamples=1000)
RUNS = {"base": ["base"], "pruned": ["base"], "healed": ["base", "healed"], "adopted": ["adopted"]}


def model(name, n_hat, n, runs, seed=0, items=400):
    hard, own = np.random.default_rng(0).lognormal(-0.02, 0.2, items), np.random.default_rng([seed, 1]).lognormal(0, 0.05, items)
    answered = {}
    for task in ("arc_easy", "csqa", "piqa"):
        loss, score = REFERENCE.predict(task, n_hat, default_budget().at(n_hat))
        answered[task] = ItemScores(
            task=task,
            item=[str(i) for i in range(items)],
            bits_per_byte=(loss * hard * own).tolist(),
            correct=(np.arange(items) < round(score * items)).astype(float).tolist(),
            choice=[0] * items,
            gold=[0] * items,
        )
    size = Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)
    return Measured(name=name, parent="" if name == "base" else "base", root="base", size=size, shape=SHAPE, items=answered, runs=runs)


def compared(runs, base_runs=("base",), n_hat=6e8):
    """The density and the comparison of one child, which differs between calls in its training runs alone."""
    base, child = model("base", 1e9, 1_000_000_000, list(base_runs)), model("child", n_hat, 700_000_000, list(runs), seed=1)
    density, (comparison,) = assess([base, child], CONFIG, [])["child"]
    return density, comparison


def width(interval):
    return math.log(interval.high / interval.low)


def scatter_rows(comparison):
    return [row for row in comparison.robustness if row.choice == "scatter"]


@pytest.mark.parametrize(
    ("one", "other", "apart", "apart_from"),
    [
        ("pruned", "base", [], []),
        ("healed", "base", ["healed"], []),
        ("healed", "pruned", ["healed"], []),
        ("adopted", "base", ["adopted"], ["base"]),
        ("adopted", "healed", ["adopted"], ["base", "healed"]),
    ],
)
def test_the_runs_that_set_two_models_apart(one, other, apart, apart_from):
    models = {name: model(name, 1e9, 1_000_000_000, runs) for name, runs in RUNS.items()}
    assert models[one].runs_apart(models[other]) == apart
    assert models[other].runs_apart(models[one]) == apart_from


def test_models_that_name_no_runs_were_trained_by_themselves():
    one, other = model("one", 1e9, 1_000_000_000, []), model("other", 1e9, 1_000_000_000, [])
    assert (one.runs_apart(other), other.runs_apart(one), one.runs_apart(one)) == (["one"], ["other"], [])
    assert model("copy", 1e9, 1_000_000_000, ["one"]).runs_apart(one) == []


def test_every_run_that_sets_them_apart_widens_r_and_moves_nothing_else():
    found = [compared(runs) for runs in (["base"], ["base", "healed"], ["adopted"])]
    densities, comparisons = [density for density, _ in found], [comparison for _, comparison in found]
    assert [comparison.runs_apart for comparison in comparisons] == [0, 1, 2]
    copy, healed, adopted = (width(comparison.ratio) for comparison in comparisons)
    assert copy * 1.1 < healed
    assert healed * 1.1 < adopted
    assert len({comparison.ratio.value for comparison in comparisons}) == 1
    assert len({comparison.density_days.value for comparison in comparisons}) == 1
    assert densities[0] == densities[1] == densities[2], "a density is held against the reference's own runs in any case"
    for task in range(3):
        widths = [width(comparison.tasks[task].ratio_by_loss) for comparison in comparisons]
        assert widths == sorted(widths)
        assert widths[0] < widths[-1]
        assert len({str(comparison.tasks[task].bits_per_byte) for comparison in comparisons}) == 1


def test_density_days_have_the_ends_of_r():
    for runs in (["base"], ["base", "healed"], ["adopted"]):
        _, comparison = compared(runs)
        assert comparison.density_days.low == pytest.approx(math.log(comparison.ratio.low) / 0.007)
        assert comparison.density_days.high == pytest.approx(math.log(comparison.ratio.high) / 0.007)


def test_the_scatter_of_a_run_that_both_have_cancels():
    _, alone = compared(["base", "healed"])
    _, longer = compared(["base", "first", "healed"], ["base", "first"])
    assert longer.ratio == alone.ratio


def test_by_score_the_runs_widen_r_too():
    widths = [width(compared(runs)[1].ratio_by_score) for runs in (["base"], ["base", "healed"], ["adopted"])]
    assert widths == sorted(widths)
    assert widths[0] * 1.1 < widths[2]


def test_copies_have_no_row_without_scatter_and_others_have_r_of_a_copy_there():
    _, copy = compared(["base"])
    assert scatter_rows(copy) == []
    for runs in (["base", "healed"], ["adopted"]):
        _, comparison = compared(runs)
        (row,) = scatter_rows(comparison)
        assert row.ratio == copy.ratio
        assert width(row.ratio) < width(comparison.ratio)


def test_a_difference_of_one_training_run_from_the_next_is_a_verdict_for_a_copy_alone():
    copy, adopted = compared(["base"], n_hat=6.3e8)[1], compared(["adopted"], n_hat=6.3e8)[1]
    assert copy.verdict == "lowered"
    assert adopted.verdict == "inconclusive"
    assert scatter_rows(adopted)[0].verdict == "lowered"
