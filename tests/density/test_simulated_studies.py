"""Studies with a known truth, from ladder to verdict: the intervals hold it, and no difference gives few verdicts."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from compresslab.density import Reference
from compresslab.density.references.budget import default_budget

pytestmark = pytest.mark.slow

STUDIES = Path(__file__).parents[2] / "experiments" / "ruler" / "studies.py"
COUNT, RESAMPLES = 4, 20


@pytest.fixture(scope="module")
def studies() -> ModuleType:
    """The experiment's own code, which is no part of the package."""
    if not STUDIES.is_file():
        pytest.skip(f"there is no {STUDIES}")
    spec = importlib.util.spec_from_file_location("ruler_studies", STUDIES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(studies: ModuleType) -> pd.DataFrame:
    """A few studies, each with a ladder of its own that is fitted anew, and two pairs of models in every arm."""
    laws = studies.truth("E > 0")
    return pd.DataFrame([row for number in range(COUNT) for row in studies.study(1, number, laws, RESAMPLES)])


def test_every_arm_is_tried(studies: ModuleType, found: pd.DataFrame) -> None:
    assert set(found["arm"]) == set(studies.ARMS)
    assert found.groupby("arm").size().max() == 2 * COUNT


def test_the_intervals_hold_the_truth(found: pd.DataFrame) -> None:
    assert found["covered"].mean() >= 0.85
    assert found[found["null"]]["covered"].mean() >= 0.85


def test_no_difference_gives_few_verdicts(found: pd.DataFrame) -> None:
    assert (found[found["null"]]["verdict"] != "inconclusive").mean() <= 0.15


def test_the_intervals_are_narrow_enough_to_say_something(found: pd.DataFrame) -> None:
    """Within the ladder's sizes, with as few as a hundred items."""
    within = found[(found["arm"] == "in range") & ~found["bound"]]
    assert 1.02 < np.exp(within["width"].median()) < 4


def test_models_within_the_ladders_sizes_are_not_extrapolated_and_those_beyond_are(found: pd.DataFrame) -> None:
    share = found.groupby("arm")["extrapolated"].mean()
    assert share["in range"] < 0.5
    assert share[["below the ladder", "above the ladder"]].min() > 0.8


def test_a_summary_counts_plain_ratios_and_bounds_apart(studies: ModuleType) -> None:
    row = {"null": True, "covered": True, "miss": "", "error": 0.1, "bound": False, "verdict": "inconclusive", "width": np.log(2)}
    rows = [row, row | {"covered": False, "miss": "low", "error": -0.3, "verdict": "lowered"}, row | {"bound": True, "null": False}]
    summary = studies.summary(pd.DataFrame(rows))
    assert (summary["pairs"], summary["bounds"]) == (3, 0.333)
    assert (summary["coverage"], summary["coverage of bounds"]) == (0.5, 1.0)
    assert (summary["r too low"], summary["r too high"], summary["false verdicts"]) == (0.5, 0.0, 0.5)
    assert summary["bias of ln r"] == pytest.approx(-0.1)
    assert summary["median factor between the ends"] == 2.0


def test_the_same_seed_gives_the_same_study(studies: ModuleType, found: pd.DataFrame) -> None:
    again = pd.DataFrame(studies.study(1, 0, studies.truth("E > 0"), RESAMPLES))
    pd.testing.assert_frame_equal(again, found.head(len(again)))


def test_the_made_up_ladder_is_near_the_truth_that_made_it(studies: ModuleType) -> None:
    laws = studies.truth("E > 0")
    made, truth = Reference.parse(studies.ladder(np.random.default_rng(0), laws, 3)), Reference.load("olmo-ladder")
    for task in studies.TASKS:
        for n in (3e8, 1e9, 3e9):
            tokens = default_budget().at(n)
            assert made.predict(task, n, tokens)[0] == pytest.approx(truth.predict(task, n, tokens)[0], rel=0.05)


@pytest.mark.parametrize(("form", "offset"), [("E > 0", True), ("E = 0", False)])
def test_the_truth_has_the_form_that_is_asked_for(studies: ModuleType, form: str, offset: bool) -> None:
    assert bool(np.any(studies.truth(form).thetas[:, 0] > 0)) == offset
