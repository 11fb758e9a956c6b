"""The table of other choices behind every ratio, and what makes a verdict fragile."""

import math

import numpy as np
import pytest

from compresslab.catalog import published_scores as tables
from compresslab.density import Measured, Reference, assess
from compresslab.density.references.budget import default_budget
from compresslab.density.robustness import BUDGETS
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Interval, ItemScores, Shape, Size

REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
CONFIG = DensityConfig(resamples=500)
TASKS = ("arc_easy", "csqa", "piqa")
NAMES = Reference.names()


def answers(task, loss, score, items=400, seed=0, logprob=None):
    hard = np.random.default_rng(0).lognormal(-0.02, 0.2, items)
    rng = np.random.default_rng([seed, 3])
    column = loss * hard / hard.mean() * (1 + rng.normal(0, 0.05, items))
    return ItemScores(
        task=task,
        item=[str(i) for i in range(items)],
        bits_per_byte=None if logprob else column.tolist(),
        logprob=(-column * math.log(2)).tolist() if logprob else None,
        correct=(np.arange(items) < round(score * items)).astype(float).tolist(),
        choice=[0] * items,
        gold=[0] * items,
    )


def measured(name, n_hats, n, parent="base", scored=None, seed=1, reference=REFERENCE, logprob=None, runs=("base",)):
    """A variant that answers each task as the reference does at `n_hats[task]`; its scores at `scored[task]` where that is given."""
    items = {}
    for task, n_hat in n_hats.items():
        loss, score = reference.predict(task, n_hat, default_budget().at(n_hat))
        if scored:
            score = reference.predict(task, scored[task], default_budget().at(scored[task]))[1]
        items[task] = answers(task, loss, score, seed=seed, logprob=logprob)
    size = Size(parameters=n, counted=n, active=n, nonzero=n, stored_bytes=2 * n, effective_bits=16.0)
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items=items, runs=list(runs))


def everywhere(n_hat, tasks=TASKS):
    return dict.fromkeys(tasks, n_hat)


BASE = measured("base", everywhere(6e8), 600_000_000, parent="", seed=0)


def compare(child, base=BASE, config=CONFIG, references=NAMES):
    return assess([base, child], config, [], references)["child"][1][0]


def rows(comparison, choice):
    return {row.setting: row for row in comparison.robustness if row.choice == choice}


def scored(name, model, table, parent="", benchmarks=tuple(tables.BENCHMARKS)):
    size, shape = tables.weights(model)
    found = {task: score.score for task, score in tables.scores_of(model, table).items() if task in benchmarks}
    return Measured(name=name, parent=parent, root="base", size=size, shape=shape, published=found, table=table)


def of_published(child, base, table, reference="qwen2.5", benchmarks=tuple(tables.BENCHMARKS)):
    pair = [scored("base", base, table, benchmarks=benchmarks), scored("child", child, table, "base", benchmarks)]
    return assess(pair, DensityConfig(reference=reference, resamples=500), [], NAMES)["child"][1][0]


def test_a_ladder_study_has_a_row_for_every_choice():
    comparison = compare(measured("child", everywhere(4e8), 600_000_000))
    assert set(rows(comparison, "D0")) == {f"{budget}{whose}" for budget, whose in BUDGETS.items() if budget.per_parameter != 200}
    assert {"1T tokens (the Densing Law's preprint)", "5T tokens (the Densing Law's journal version)"} < set(rows(comparison, "D0"))
    assert set(rows(comparison, "reference")) == set(NAMES) - {"olmo-ladder"}
    assert set(rows(comparison, "estimator")) == {"score"}
    assert set(rows(comparison, "task alone")) == set(rows(comparison, "task left out")) == set(TASKS)
    assert rows(comparison, "scatter") == {}, "a copy has its parent's training run"
    assert rows(comparison, "curve") == {}
    trained = compare(measured("child", everywhere(4e8), 600_000_000, runs=("base", "child")))
    assert set(rows(trained, "scatter")) == {"these two models, not a second training run"}


def test_without_other_references_none_is_asked():
    assert rows(compare(measured("child", everywhere(4e8), 600_000_000), references=()), "reference") == {}


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_budget_of_the_study_is_no_other_choice(budget):
    given = {"tokens": budget.tokens} if budget.tokens else {"tokens_per_parameter": budget.per_parameter}
    comparison = compare(measured("child", everywhere(4e8), 600_000_000), config=DensityConfig(resamples=200, **given))
    assert set(rows(comparison, "D0")) == {f"{other}{whose}" for other, whose in BUDGETS.items() if other != budget}


def test_two_tasks_are_taken_alone_and_one_is_not():
    two = ("arc_easy", "csqa")
    base, child = measured("base", everywhere(6e8, two), 600_000_000, ""), measured("child", everywhere(4e8, two), 600_000_000)
    comparison = compare(child, base)
    assert set(rows(comparison, "task alone")) == set(two)
    assert rows(comparison, "task left out") == {}, "of two tasks, leaving out one is the other alone"
    base, child = (v.model_copy(update={"items": {"csqa": v.items["csqa"]}}) for v in (base, child))
    assert rows(compare(child, base), "task alone") == {}


def test_the_row_of_a_choice_is_the_study_that_makes_it():
    child = measured("child", everywhere(4e8), 500_000_000, scored=everywhere(3e8))
    comparison = compare(child)
    other = compare(child, config=DensityConfig(resamples=500, tokens=5e12))
    assert rows(comparison, "D0")["5T tokens (the Densing Law's journal version)"].ratio == other.ratio
    assert rows(comparison, "estimator")["score"].ratio == comparison.ratio_by_score
    one = [v.model_copy(update={"items": {"csqa": v.items["csqa"]}}) for v in (BASE, child)]
    alone = assess(one, CONFIG, [])["child"][1][0].ratio
    assert rows(comparison, "task alone")["csqa"].ratio == alone
    without = [v.model_copy(update={"items": {t: s for t, s in v.items.items() if t != "csqa"}}) for v in (BASE, child)]
    assert rows(comparison, "task left out")["csqa"].ratio == assess(without, CONFIG, [])["child"][1][0].ratio


def test_references_that_know_none_of_the_tasks_say_so():
    found = rows(compare(measured("child", everywhere(4e8), 600_000_000)), "reference")
    assert len(found) == 3
    for row in found.values():
        assert (row.ratio, row.verdict, row.flips) == (None, "inconclusive", False)
        assert row.reason == "it has none of the study's tasks"


def test_a_comparison_without_a_ratio_has_no_table():
    base, child = measured("base", everywhere(2e6), 600_000_000, ""), measured("child", everywhere(1e6), 600_000_000)
    comparison = compare(child, base)
    assert comparison.ratio is None
    assert comparison.robustness == []
    assert not comparison.fragile


def test_every_row_without_a_ratio_has_a_reason_and_every_row_with_one_has_none():
    comparisons = [
        compare(measured("child", everywhere(4e8), 600_000_000)),
        of_published("Llama-3.2-1B", "Llama-3.1-8B", "Llama3.2-card-base"),
    ]
    for comparison in comparisons:
        assert comparison.robustness
        assert [row for row in comparison.robustness if (row.ratio is None) != bool(row.reason)] == []


def test_a_clear_verdict_that_all_choices_share_is_not_fragile():
    for n_hat, expected in ((3e8, "lowered"), (1.2e9, "raised")):
        comparison = compare(measured("child", everywhere(n_hat), 600_000_000))
        assert comparison.verdict == expected
        assert not comparison.fragile
        assert [row for row in comparison.robustness if row.flips] == []


def test_a_score_that_says_the_opposite_of_the_loss_makes_the_verdict_fragile():
    comparison = compare(measured("child", everywhere(3e8), 600_000_000, scored=everywhere(2e9)))
    assert comparison.verdict == "lowered"
    assert comparison.fragile
    assert [(row.choice, row.setting) for row in comparison.robustness if row.flips] == [("estimator", "score")]
    assert rows(comparison, "estimator")["score"].ratio.value > 1


def test_one_task_that_carries_the_verdict_makes_it_fragile():
    """Two tasks up a little, one down by far: without it the value lies on the other side of 1."""
    hats = {"arc_easy": 7.5e8, "csqa": 7.5e8, "piqa": 1e8}
    comparison = compare(measured("child", hats, 600_000_000, scored=everywhere(3e8)))
    assert comparison.verdict == "lowered"
    flips = {(row.choice, row.setting) for row in comparison.robustness if row.flips}
    assert ("task left out", "piqa") in flips
    assert not {("task left out", "csqa"), ("task left out", "arc_easy"), ("task alone", "piqa")} & flips
    assert comparison.fragile


def test_a_single_task_flips_only_if_it_decides_the_other_way():
    """Its value alone is on the other side in both; only the second is sure of it."""
    for n_hat, flips in ((6.3e8, False), (9e8, True)):
        comparison = compare(measured("child", {"arc_easy": 2e8, "csqa": 2e8, "piqa": n_hat}, 600_000_000, scored=everywhere(2e8)))
        row = rows(comparison, "task alone")["piqa"]
        assert comparison.verdict == "lowered"
        assert row.ratio.value > 1
        assert (row.flips, row.verdict == "raised", comparison.fragile) == (flips, flips, flips)


def test_what_decides_nothing_is_not_fragile():
    comparison = compare(measured("child", everywhere(6.05e8), 600_000_000, scored=everywhere(1e8)))
    assert comparison.verdict == "inconclusive"
    assert comparison.verdict_by_score == "lowered"
    assert not comparison.fragile
    assert not any(row.flips for row in comparison.robustness)


def almost(variant, n_hat):
    """The variant with scores that are the reference's at n_hat to a thousandth, item by item."""
    items = {}
    for task, old in variant.items.items():
        score = REFERENCE.predict(task, n_hat, default_budget().at(n_hat))[1]
        items[task] = old.model_copy(update={"correct": (score * np.tile([0.9999, 1.0001], 200)).tolist()})
    return variant.model_copy(update={"items": items})


def test_a_bound_that_leaves_the_side_open_does_not_flip():
    """By score the child is below the ruler: r < 1.6 says nothing against r = 0.4."""
    base, child = almost(BASE, 6e7), almost(measured("child", everywhere(1.2e8), 300_000_000), 1e7)
    comparison = compare(child, base)
    row = rows(comparison, "estimator")["score"]
    assert comparison.verdict == "lowered"
    assert (row.ratio.bound, row.ratio.value > 1, row.verdict) == ("<", True, "inconclusive")
    assert not row.flips


def test_a_family_without_budgets_has_no_row_of_d0_but_one_of_straight_lines():
    comparison = of_published("Llama-3.2-3B", "Llama-3.1-8B", "Llama3.2-card-base")
    assert rows(comparison, "D0") == {}
    assert rows(comparison, "estimator") == {}, "a family is read by score anyway"
    (interpolate,) = rows(comparison, "curve").values()
    assert interpolate.ratio.value == pytest.approx(comparison.ratio.value, rel=0.3)
    assert set(rows(comparison, "reference")) == {"llama-1-2", "olmo-ladder", "pythia"}
    assert rows(comparison, "reference")["llama-1-2"].ratio is not None


def test_straight_lines_say_nothing_outside_a_familys_scores():
    (interpolate,) = rows(of_published("Llama-3.2-1B", "Llama-3.1-8B", "Llama3.2-card-base"), "curve").values()
    assert interpolate.ratio is None
    assert interpolate.reason == "outside its models' scores"


def test_straight_lines_meet_the_familys_own_models():
    reference = Reference.load("qwen2.5")
    comparison = of_published("Qwen2.5-3B", "Qwen2.5-1.5B", "Qwen2.5-blog-base-4", benchmarks=("MMLU",))
    (interpolate,) = rows(comparison, "curve").values()
    assert interpolate.ratio.value == pytest.approx(1, abs=0.01), "both lie on the lines that join them"
    points = reference.tasks["MMLU"].points
    assert len(points) == reference.runs == 7
    assert np.all(np.diff(points[:, 0]) > 0)


def test_every_benchmark_alike_is_the_geometric_mean_of_the_single_ones():
    comparison = of_published("Gemma-2-2B", "Gemma-2-27B", "Gemma2-report-T13")
    (equal_weights,) = rows(comparison, "weights").values()
    single = [task.ratio_by_score.value for task in comparison.tasks]
    assert len(single) == 5
    assert equal_weights.ratio.value == pytest.approx(math.exp(np.mean(np.log(single))))
    assert equal_weights.ratio.value < 1 < comparison.ratio.value, "the weights decide on which side it lies, and the page shows both"
    assert rows(of_published("Llama-3.2-3B", "Llama-3.1-8B", "Llama3.2-card-base"), "weights") == {}


def test_lambada_on_pythia_is_read_by_loss_from_log_probabilities():
    pythia = Reference.load("pythia")
    tasks = ("lambada_openai",)
    base = measured("base", everywhere(4e8, tasks), 600_000_000, "", reference=pythia, logprob=True)
    child = measured("child", everywhere(2e8, tasks), 300_000_000, reference=pythia, logprob=True)
    config = DensityConfig(reference="pythia", resamples=500)
    result = assess([base, child], config, [], NAMES)
    density, comparison = result["child"][0], result["child"][1][0]
    assert density.estimator == comparison.estimator == "loss"
    assert density.tasks[0].by_loss.value == pytest.approx(2e8, rel=0.05)
    assert comparison.ratio.value == pytest.approx(1, rel=0.05)
    assert comparison.tasks[0].ratio_by_loss is not None
    assert comparison.tasks[0].bits_per_byte is None
    assert set(rows(comparison, "reference")) == {"llama-1-2", "olmo-ladder", "qwen2.5"}
    assert len(rows(comparison, "D0")) == len(BUDGETS) - 1


def test_the_losses_of_one_unit_are_not_read_on_a_ruler_of_another():
    """Bits per byte of LAMBADA are no bits per word: without log-probabilities Pythia reads the score alone."""
    pythia = Reference.load("pythia")
    base, child = (
        measured(name, {"lambada_openai": n}, 3, p, reference=pythia) for name, n, p in (("base", 4e8, ""), ("child", 2e8, "base"))
    )
    density, comparisons = assess([base, child], DensityConfig(reference="pythia", resamples=200), [])["child"]
    assert density.tasks[0].by_loss is None
    assert comparisons[0].estimator == "score"


def test_every_ratio_of_the_table_is_ordered():
    for comparison in (
        compare(measured("child", everywhere(3e7), 600_000_000)),
        of_published("Gemma-2-2B", "Gemma-2-27B", "Gemma2-report-T13"),
    ):
        for row in comparison.robustness:
            if row.ratio is not None:
                assert isinstance(row.ratio, Interval)
                assert 0 <= row.ratio.low <= row.ratio.value <= row.ratio.high


def test_a_noisy_choice_that_merely_does_not_decide_flips_nothing():
    """By score the value lies on the other side of 1, and its interval holds the study's own: that is noise and no contradiction."""
    base = measured("base", everywhere(6e8), 600_000_000, parent="")
    child = measured("child", everywhere(5e8), 600_000_000)
    # Two right answers more than the parent has, of all it could have: by score slightly better, and far from sure.
    luckier = {}
    for task, answers in child.items.items():
        correct = list(base.items[task].correct)
        wrong = [i for i, value in enumerate(correct) if value == 0][:2]
        luckier[task] = answers.model_copy(update={"correct": [1.0 if i in wrong else value for i, value in enumerate(correct)]})
    child = child.model_copy(update={"items": luckier})
    comparison = assess([base, child], DensityConfig(resamples=400), [])["child"][1][0]
    score = next(one for one in comparison.robustness if one.choice == "estimator")
    assert comparison.verdict == "lowered"
    assert score.ratio.value > 1
    assert score.flips == (not score.ratio.low <= comparison.ratio.value)
