"""Studies with a known truth, from ladder to verdict: the intervals hold it, and no difference gives few verdicts."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from compresslab.density import Reference

pytestmark = pytest.mark.slow

CHECK = Path(__file__).parents[2] / "experiments" / "ruler" / "check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The experiment's own code, which is no part of the package."""
    if not CHECK.is_file():
        pytest.skip(f"there is no {CHECK}")
    spec = importlib.util.spec_from_file_location("ruler_check", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(check: ModuleType) -> dict[str, Any]:
    """Thirty studies, each with a ladder of its own that is fitted anew."""
    result: dict[str, Any] = check.studies(count=30, resamples=30, seed=1)
    return result


def test_the_intervals_hold_the_truth(found: dict[str, Any]) -> None:
    assert found["studies"] == 30
    assert found["coverage_of_r"] >= 0.85
    assert found["coverage_under_no_difference"] >= 0.85


def test_no_difference_gives_few_verdicts(found: dict[str, Any]) -> None:
    assert found["false_verdicts_under_no_difference"] <= 0.15


def test_the_intervals_are_narrow_enough_to_say_something(found: dict[str, Any]) -> None:
    """A ladder of thirty resamples and as few as a hundred items: a factor of about 2.4 between the ends."""
    assert 1.02 < found["median_width_of_interval_factor"] < 4


def test_the_same_seed_gives_the_same_studies(check: ModuleType) -> None:
    once, again = (check.studies(count=2, resamples=5, seed=3) for _ in range(2))
    assert once == again


def test_the_made_up_ladder_is_near_the_truth_that_made_it(check: ModuleType) -> None:
    raw = check.synthetic(np.random.default_rng(0), 5)
    made, truth = Reference.parse(raw), Reference.load("olmo-ladder")
    for task in check.TASKS:
        for n in (3e8, 1e9, 3e9):
            assert made.predict(task, n, 3e11)[0] == pytest.approx(truth.predict(task, n, 3e11)[0], rel=0.05)
