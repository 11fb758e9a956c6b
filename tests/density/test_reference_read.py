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
from compresslab.errors import BadInput

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


@pytest.mark.parametrize("given", [{}, {"tokens": 1e12, "per_parameter": 20.0}, {"tokens": 0.0}, {"per_parameter": float("nan")}])
def test_a_budget_that_is_none_is_refused(given):
    with pytest.raises(BadInput, match="D0"):
        Budget(**given)


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


@given(task=TASKS, n=st.floats(2e7, 3e10), d0=st.floats(1e11, 1.5e13))
def test_predicting_and_reading_are_inverse(task, n, d0):
    bpb, score = REFERENCE.predict(task, n, d0)
    assert REFERENCE.effective_params(task=task, bpb=bpb, budget=Budget(tokens=d0)).value == pytest.approx(n, rel=1e-6)
    read = REFERENCE.effective_params(task=task, score=score, budget=Budget(tokens=d0))
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


def test_rescaling_the_reference_rescales_every_reading():
    task, factor = REFERENCE.tasks["piqa"], 7.0
    loss = task.loss.copy()
    loss[:, 1] += np.exp(loss[:, 2]) * np.log(factor)
    low, high = REFERENCE.parameters_range
    scaled = dataclasses.replace(
        REFERENCE, parameters_range=(low * factor, high * factor), tasks={"piqa": dataclasses.replace(task, loss=loss)}
    )
    for bpb in (0.5, 0.95, 1.1, 1.3, 3.0):
        ours, theirs = REFERENCE.effective_params(task="piqa", bpb=bpb), scaled.effective_params(task="piqa", bpb=bpb)
        assert theirs.bound == ours.bound
        for end in ("value", "low", "high"):
            assert getattr(theirs, end) == pytest.approx(factor * getattr(ours, end))


@pytest.mark.parametrize("lacking", ["loss_error", "score_error"])
def test_a_file_whose_held_out_runs_lack_a_value_is_refused(tmp_path, lacking):
    content = json.loads((resources.files("compresslab") / "data" / "references" / "olmo-ladder.json").read_text())
    run = next(iter(content["tasks"]["arc_easy"]["held_out"].values()))
    del run[lacking]
    (tmp_path / "reference.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=f"lacks {lacking}"):
        Reference.load(str(tmp_path / "reference.json"))
