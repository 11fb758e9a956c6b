"""The healing curve: a line through several budgets, and nothing made up from one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compresslab.records import Interval, StudyRecord
from compresslab.report.healing import healings

from . import studies


def healed(ratios: dict[float, float], spread: float = 0.05) -> StudyRecord:
    """A pruned model, and it retrained at several budgets with a given r to the base."""
    root = studies.base()
    pruned = studies.child(root, root, "pruned", studies.step("prune", "depth", 100e6, 16), 1.5, 0.8)
    made = [root, pruned]
    for tokens, ratio in ratios.items():
        last = studies.step("retrain", "full", 100e6, 16, {"tokens": int(tokens), "lr": 1e-4}, tokens=int(tokens))
        variant = studies.child(pruned, root, f"healed-{tokens:.0f}", last, 1.2, 0.8)
        interval = Interval(value=ratio, low=ratio * math.exp(-1.96 * spread), high=ratio * math.exp(1.96 * spread))
        compared = [one.model_copy(update={"ratio": interval}) if one.relation == "root" else one for one in variant.comparisons]
        made.append(variant.model_copy(update={"comparisons": compared}))
    return studies.study(made)


def test_the_tokens_needed_are_read_off_the_line_through_the_budgets() -> None:
    # ln r = -4 + 0.2 ln t reaches 0 at t = e^20
    line = {tokens: math.exp(-4 + 0.2 * math.log(tokens)) for tokens in (1e5, 1e6, 1e7)}
    [healing] = healings(healed(line, spread=0.02))
    assert healing.start == "pruned"
    assert [point.tokens for point in healing.points] == [1e5, 1e6, 1e7]
    assert healing.line == (pytest.approx(-4), pytest.approx(0.2))
    assert healing.needed is not None
    assert healing.needed.value == pytest.approx(math.exp(20))
    assert healing.needed.low < math.exp(20) < healing.needed.high
    assert healing.needed.extrapolated
    assert healing.summary.startswith("Extrapolated: the base's density would be reached at ≈ 485.2 M tokens [")


@pytest.mark.parametrize("common", [0.0, 0.5, 0.9], ids=["own errors", "half in common", "nearly all in common"])
@pytest.mark.parametrize("reached", [1.2, 30.0])
def test_the_interval_of_the_tokens_needed_covers_as_often_as_it_says(common: float, reached: float) -> None:
    draws, hits = np.random.default_rng(1), 0
    truth = 1e7 * reached
    for _ in range(100):
        shared = draws.normal(0, 0.1 * math.sqrt(common))
        own = 0.1 * math.sqrt(1 - common)
        noisy = {tokens: math.exp(0.2 * math.log(tokens / truth) + shared + draws.normal(0, own)) for tokens in (1e5, 1e6, 1e7)}
        [healing] = healings(healed(noisy, spread=0.1))
        assert healing.needed is not None
        hits += healing.needed.low <= truth <= healing.needed.high
    assert hits >= 88


def test_one_budget_draws_no_line() -> None:
    [healing] = healings(healed({1e6: 0.5}))
    assert healing.line is healing.needed is None
    assert healing.summary.startswith("One budget draws no line")


def test_a_line_that_falls_reaches_nothing() -> None:
    [healing] = healings(healed({1e5: 0.5, 1e6: 0.3}))
    assert healing.needed is not None
    assert math.isinf(healing.needed.value)
    assert healing.summary == "On the line through these budgets the base's density is not reached."


def test_a_budget_that_reaches_the_base_needs_no_extrapolation() -> None:
    [healing] = healings(healed({1e5: 0.8, 1e6: 1.2}))
    assert healing.summary.startswith("The base's density is reached within 1 M tokens: r\u00a0=\u00a01.20 [")


def test_an_interval_that_holds_one_says_only_that_it_may() -> None:
    [healing] = healings(healed({1e5: 0.5, 1e6: 1.01}, spread=0.2))
    assert healing.summary.startswith("The base's density may be reached within 1 M tokens")
    study = healed({1e6: 1.05})
    bound = Interval(value=1.05, low=0.0, high=1.05, bound="<")
    last = study.variants[-1]
    compared = [one.model_copy(update={"ratio": bound}) for one in last.comparisons]
    [healing] = healings(study.model_copy(update={"variants": [*study.variants[:-1], last.model_copy(update={"comparisons": compared})]}))
    assert "reached within" not in healing.summary


def test_another_learning_rate_is_another_curve_and_training_the_base_is_no_healing() -> None:
    study = healed({1e5: 0.4, 1e6: 0.5})
    other = study.variants[-1].steps[-1].model_copy(update={"config": {"tokens": 10**6, "lr": 1e-3}})
    changed = study.variants[-1].model_copy(update={"steps": [*study.variants[-1].steps[:-1], other]})
    assert len(healings(study.model_copy(update={"variants": [*study.variants[:-1], changed]}))) == 2
    root = studies.base()
    trained = studies.child(root, root, "trained", studies.step("retrain", "full", 134.5e6, 16, tokens=1000), 0.9, 1)
    assert healings(studies.study([root, trained])) == []
