"""The curves that a page draws are the ones that densities are read off."""

import numpy as np
import pytest

from compresslab.density import Budget, Reference
from compresslab.density.references.curve import curve, curves
from compresslab.errors import BadInput
from compresslab.records import Density, Interval, TaskDensity


@pytest.mark.parametrize(("name", "task"), [("olmo-ladder", "arc_easy"), ("pythia", "lambada_openai")])
def test_reading_a_value_off_the_curve_gives_the_effective_parameters(name, task):
    reference = Reference.load(name)
    drawn = curve(reference, task, Budget(tokens=1e12))
    assert drawn.unit == reference.unit
    for place in (20, 40):
        read = reference.effective_params(task=task, bpb=drawn.middle[place], budget=Budget(tokens=1e12))
        assert read.value == pytest.approx(drawn.params[place], rel=1e-6)
    assert all(low <= high for low, high in zip(drawn.low, drawn.high, strict=True))
    assert np.all(np.diff(drawn.middle) < 0)


def test_a_family_is_drawn_by_score_with_its_own_models():
    reference = Reference.load("qwen2.5")
    drawn = curve(reference, next(iter(reference.tasks)), Budget(tokens=1e12))
    assert drawn.unit == "score"
    assert len(drawn.points) > 2
    assert 0 <= min(drawn.middle) <= max(drawn.middle) <= 1


def test_the_curves_of_a_study_reach_its_variants():
    near = Interval(value=2e7, low=1e7, high=3e7)
    read, unread = (TaskDensity(task=task, by_loss=loss, by_score=None) for task, loss in (("arc_easy", near), ("piqa", None)))
    empty = dict.fromkeys(("effective_by_score", "active", "bits", "params_by_score"))
    density = Density(reference="olmo-ladder", tokens=5e11, effective_by_loss=near, params=near, tasks=[read, unread], **empty)
    [drawn] = curves("olmo-ladder", [density])
    assert drawn.task == "arc_easy"
    assert drawn.params[0] < 2e7
    assert curves("olmo-ladder", []) == []


def test_a_task_that_the_reference_lacks_is_named():
    with pytest.raises(BadInput, match="has no task 'x'"):
        curve(Reference.load("olmo-ladder"), "x", Budget(tokens=1e12))
