"""Reading effective parameters off a reference."""

import dataclasses
import json
import time
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.density import Budget, Reference
from compresslab.density.references.budget import budget_of, default_budget
from compresslab.density.references.laws import D_UNIT, N_UNIT, loss_law
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig

REFERENCE = Reference.load("olmo-ladder")
TASKS = st.sampled_from(sorted(REFERENCE.tasks))
LOWEST, HIGHEST = REFERENCE.parameters_range[0] / REFERENCE.reach[0], REFERENCE.parameters_range[1] * REFERENCE.reach[1]
PREPRINT = Budget(tokens=1e12)


def test_the_hand_check_of_smollm2_at_the_preprints_budget():
    base = REFERENCE.effective_params(task="arc_easy", bpb=0.93, budget=PREPRINT)
    assert base.value / 134.5e6 == pytest.approx(0.70, abs=0.06)
    assert base.low < base.value < base.high
    assert base.extrapolated
    assert not base.bound
    child = REFERENCE.effective_params(task="arc_easy", bpb=1.203, budget=PREPRINT)
    assert child.value == pytest.approx(LOWEST)
    assert child.bound == "<"


def test_within_its_own_runs_a_reading_is_not_extrapolated():
    """A loss of a 370M model at ten times Chinchilla is one of the ladder's own; at 1T tokens no run of it ends."""
    bpb, _ = REFERENCE.predict("arc_easy", 3.7e8, 200 * 3.7e8)
    read = REFERENCE.effective_params(task="arc_easy", bpb=bpb)
    assert read.value == pytest.approx(3.7e8)
    assert not read.extrapolated
    assert REFERENCE.effective_params(task="arc_easy", bpb=bpb, budget=PREPRINT).extrapolated


@pytest.mark.parametrize(
    ("budget", "extrapolated"),
    [
        (Budget(per_parameter=20), False),
        (Budget(per_parameter=600), False),
        (Budget(per_parameter=650), True),
        (Budget(tokens=6.3e11), False),
        (Budget(tokens=6.4e11), True),
        (Budget(tokens=2e9), False),
        (Budget(tokens=1.8e9), True),
    ],
)
def test_a_budget_outside_the_ladders_runs_is_extrapolated(budget, extrapolated):
    """They have 1.9B to 634B tokens; the model of 1B parameters lies within their sizes."""
    bpb, _ = REFERENCE.predict("arc_easy", 1e9, budget.at(1e9))
    read = REFERENCE.effective_params(task="arc_easy", bpb=bpb, budget=budget)
    assert read.value == pytest.approx(1e9)
    assert read.extrapolated == extrapolated


def test_a_family_whose_law_has_no_tokens_is_not_extrapolated_by_a_budget():
    family = Reference.load("qwen2.5")
    read = [family.effective_params(task="MMLU", score=0.7, budget=Budget(tokens=tokens)) for tokens in (1e6, 1e12, 1e18)]
    assert read[0] == read[1] == read[2] == family.effective_params(task="MMLU", score=0.7)
    assert not read[0].extrapolated


@pytest.mark.parametrize(("name", "reach"), [("olmo-ladder", (3.98, 2.48)), ("pythia", (2.77, 4.38)), ("qwen2.5", (3.12, 1.36))])
def test_a_reference_is_read_as_far_as_its_reach_and_no_further(name, reach):
    reference = Reference.load(name)
    assert reference.reach == pytest.approx(reach)
    task = next(iter(reference.tasks))
    fit, (first, last) = reference.tasks[task], reference.parameters_range
    below, above = first / reach[0], last * reach[1]
    for n, bound in ((0.99 * below, "<"), (1.01 * below, ""), (0.99 * above, ""), (1.01 * above, ">")):
        loss = loss_law(fit.loss[0], np.array(n / N_UNIT), np.array(default_budget().at(n) / D_UNIT))
        found = reference.reading(task, loss, np.full(5, float(loss)), default_budget(), np.zeros(5, dtype=np.intp))
        assert (found.bound, found.extrapolated) == (bound, True), n
        assert np.exp(found.point) == pytest.approx({"<": below, ">": above, "": n}[bound])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("olmo-ladder", "Its own models, left out of the fit, test 4.0 below and 2.5 above."),
        ("qwen2.5", "test 3.1 below. 1.4 above was not tested but interpolated: the nearest models left out are read wrongly"),
    ],
)
def test_the_page_says_of_each_end_of_the_reach_whether_it_was_tested_or_interpolated(name, words):
    assert words in Reference.load(name).reach_in_words


def test_a_reference_that_is_not_read_beyond_its_sizes_claims_no_test():
    none = dataclasses.replace(REFERENCE, reach=(1.0, 1.0), reach_tested=(False, False))
    assert none.reach_in_words.endswith("beyond, there is only a bound.")


def shipped():
    """The content of the file of the OLMo ladder."""
    return json.loads((resources.files("compresslab") / "data" / "references" / "olmo-ladder.json").read_text())


def test_a_file_of_before_that_has_no_reach_is_read_as_far_as_the_ladder_is_and_says_that_it_is_untested(tmp_path):
    content = shipped()
    del content["reach"], content["reach_tested"]
    (tmp_path / "before.json").write_text(json.dumps(content))
    before = Reference.load(str(tmp_path / "before.json"))
    assert before.reach == REFERENCE.reach
    assert before.reach_tested is None
    assert "it was not tested for olmo-ladder" in before.reach_in_words
    bpb, _ = REFERENCE.predict("piqa", 1e9, 2e11)
    assert before.effective_params(task="piqa", bpb=bpb) == REFERENCE.effective_params(task="piqa", bpb=bpb)
    assert before.effective_params(task="piqa", bpb=3.0).value == pytest.approx(LOWEST)


def test_a_file_that_does_not_say_whether_its_reach_was_tested_is_read_that_far_and_says_so(tmp_path):
    content = {**shipped(), "reach": [3.0, 2.0]}
    del content["reach_tested"]
    (tmp_path / "before.json").write_text(json.dumps(content))
    before = Reference.load(str(tmp_path / "before.json"))
    assert before.reach == (3.0, 2.0)
    assert before.reach_in_words.endswith("Its file does not say whether its own models, left out of the fit, were read that far.")
    assert before.effective_params(task="piqa", bpb=3.0).value == pytest.approx(before.parameters_range[0] / 3)
    del content["reach"]
    (tmp_path / "odd.json").write_text(json.dumps({**content, "reach_tested": [True, True]}))
    with pytest.raises(BadInput, match="it has reach_tested and no reach"):
        Reference.load(str(tmp_path / "odd.json"))


@pytest.mark.parametrize("reach", [[0.5, 2.0], [2.0], [2.0, float("nan")], "far"])
def test_a_file_whose_reach_is_none_is_refused(tmp_path, reach):
    (tmp_path / "reference.json").write_text(json.dumps(shipped() | {"reach": reach}))
    with pytest.raises(BadInput, match="is no reference"):
        Reference.load(str(tmp_path / "reference.json"))


@pytest.mark.parametrize("given", [{}, {"tokens": 1e12, "per_parameter": 20.0}, {"tokens": 0.0}, {"per_parameter": float("nan")}])
def test_a_budget_that_is_none_is_refused(given):
    with pytest.raises(BadInput, match="D0"):
        Budget(**given)


@pytest.mark.parametrize("value", [-1.0, 0.0, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", ["tokens", "per_parameter"])
def test_a_budget_is_positive_and_finite(kind, value):
    with pytest.raises(BadInput, match=r"D0 is .*; it must be positive and finite"):
        Budget(**{kind: value})


def test_a_budget_gives_each_size_its_tokens_and_says_what_it_is():
    ray, flat, sizes = Budget(per_parameter=200.0), Budget(tokens=1e12), np.array([1e8, 1e9, 7e9])
    assert (ray.at(1e9), flat.at(1e9)) == (2e11, 1e12)
    for budget in (ray, flat):
        np.testing.assert_allclose(budget.of_sizes(sizes), [budget.at(float(n)) for n in sizes])
    assert [str(one) for one in (ray, flat, Budget(tokens=3e11))] == ["200 tokens a parameter", "1T tokens", "300B tokens"]


def test_a_recipe_without_a_budget_has_ten_times_chinchilla_and_one_number_wins_over_it():
    assert default_budget() == budget_of(DensityConfig()) == Budget(per_parameter=200.0)
    assert budget_of(DensityConfig(tokens_per_parameter=20)) == Budget(per_parameter=20.0)
    assert budget_of(DensityConfig(tokens=5e12)) == Budget(tokens=5e12)


def test_loading_is_fast_and_fits_nothing():
    best = 1.0
    for _ in range(3):
        start = time.perf_counter()
        Reference.load("olmo-ladder")
        best = min(best, time.perf_counter() - start)
    assert best < 0.05


def test_an_unknown_reference_or_task_is_named_with_those_that_exist():
    with pytest.raises(BadInput, match=r"'olmo-lader'; did you mean 'olmo-ladder'\?"):
        Reference.load("olmo-lader")
    with pytest.raises(BadInput, match=r"no task 'winogrande'.*arc_easy"):
        REFERENCE.effective_params(task="winogrande", bpb=1.0)


@pytest.mark.parametrize("bpb", [float("nan"), float("inf"), -0.1, -float("inf")])
def test_a_loss_that_is_none_is_refused(bpb):
    with pytest.raises(BadInput, match="bpb of arc_easy is"):
        REFERENCE.effective_params(task="arc_easy", bpb=bpb)


@pytest.mark.parametrize("score", [float("nan"), -0.01, 1.01])
def test_a_score_that_is_none_is_refused(score):
    with pytest.raises(BadInput, match="score of arc_easy is"):
        REFERENCE.effective_params(task="arc_easy", score=score)


@pytest.mark.parametrize("given_", [{}, {"bpb": 1.0, "score": 0.5}, {"task": "none", "bpb": 1.0}])
def test_arguments_that_contradict_each_other_are_refused(given_):
    with pytest.raises(BadInput):
        REFERENCE.effective_params(**{"task": "arc_easy"} | given_)


@given(task=TASKS, bpb=st.floats(0, 20))
def test_a_value_is_finite_and_lies_in_its_interval_and_within_reach(task, bpb):
    found = REFERENCE.effective_params(task=task, bpb=bpb)
    assert 0 <= found.low <= found.value <= found.high
    assert LOWEST * 0.999 <= found.value <= HIGHEST * 1.001
    outside = not REFERENCE.parameters_range[0] * 0.999 <= found.value <= REFERENCE.parameters_range[1] * 1.001
    assert found.extrapolated == outside
    if found.bound == "<":
        assert found.value == pytest.approx(LOWEST)
        assert found.low == 0
    if found.bound == ">":
        assert found.value == pytest.approx(HIGHEST)
        assert found.high == float("inf")


@given(task=TASKS, bpb=st.floats(0, 5), more=st.floats(0, 2))
def test_effective_parameters_fall_as_loss_rises(task, bpb, more):
    assert REFERENCE.effective_params(task=task, bpb=bpb).value >= REFERENCE.effective_params(task=task, bpb=bpb + more).value


@given(task=TASKS, score=st.floats(0, 1), less=st.floats(0, 1))
def test_effective_parameters_fall_as_the_score_falls(task, score, less):
    lower = REFERENCE.effective_params(task=task, score=score * (1 - less))
    assert REFERENCE.effective_params(task=task, score=score).value >= lower.value


BUDGETS = st.one_of(st.builds(Budget, tokens=st.floats(1e11, 1.5e13)), st.builds(Budget, per_parameter=st.floats(10, 5000)))


@given(task=TASKS, n=st.floats(1.001 * LOWEST, 0.999 * HIGHEST), budget=BUDGETS)
def test_predicting_and_reading_are_inverse(task, n, budget):
    bpb, score = REFERENCE.predict(task, n, budget.at(n))
    assert REFERENCE.effective_params(task=task, bpb=bpb, budget=budget).value == pytest.approx(n, rel=1e-6)
    read = REFERENCE.effective_params(task=task, score=score, budget=budget)
    if score <= REFERENCE.tasks[task].chance:
        assert read.bound == "<"  # what a score at chance says of a size is luck
    else:
        assert read.value == pytest.approx(n, rel=1e-4)


def test_a_loss_that_no_size_reaches_gives_an_upper_bound():
    irreducible = REFERENCE.tasks["arc_easy"].loss[0, 0]
    found = REFERENCE.effective_params(task="arc_easy", bpb=float(irreducible))
    assert (found.bound, found.extrapolated) == (">", True)
    assert found.value == pytest.approx(HIGHEST)


@pytest.mark.parametrize(("score", "bound"), [(0.0, "<"), (0.2, "<"), (1.0, ">")])
def test_a_score_off_the_link_gives_a_bound(score, bound):
    assert REFERENCE.effective_params(task="arc_easy", score=score).bound == bound


@pytest.mark.parametrize(("budget", "scaled_budget"), [(None, Budget(per_parameter=200 / 7)), (PREPRINT, PREPRINT)])
def test_rescaling_the_reference_rescales_every_reading(budget, scaled_budget):
    """Models seven times as large with the same losses after the same tokens, so with a seventh of the tokens for each parameter."""
    task, factor = REFERENCE.tasks["piqa"], 7.0
    loss = task.loss.copy()
    loss[:, 1] += np.exp(loss[:, 2]) * np.log(factor)
    low, high = REFERENCE.parameters_range
    scaled = dataclasses.replace(
        REFERENCE, parameters_range=(low * factor, high * factor), tasks={"piqa": dataclasses.replace(task, loss=loss)}
    )
    for bpb in (0.5, 0.95, 1.1, 1.3, 3.0):
        ours = REFERENCE.effective_params(task="piqa", bpb=bpb, budget=budget)
        theirs = scaled.effective_params(task="piqa", bpb=bpb, budget=scaled_budget)
        assert (theirs.bound, theirs.extrapolated) == (ours.bound, ours.extrapolated)
        for end in ("value", "low", "high"):
            assert getattr(theirs, end) == pytest.approx(factor * getattr(ours, end))


@pytest.mark.parametrize("lacking", ["loss_error", "score_error"])
def test_a_file_whose_held_out_runs_lack_a_value_is_refused(tmp_path, lacking):
    content = shipped()
    run = next(iter(content["tasks"]["arc_easy"]["held_out"].values()))
    del run[lacking]
    (tmp_path / "reference.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=f"lacks {lacking}"):
        Reference.load(str(tmp_path / "reference.json"))
