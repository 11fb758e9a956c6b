"""How many items a task would decide an undecided verdict."""

from __future__ import annotations

import math

import numpy as np

from compresslab.density import student
from compresslab.density.capability import Ruler, minor_bounds
from compresslab.density.draws import Measured
from compresslab.density.intervals import LogEstimate, spread, standard_deviation
from compresslab.density.sample import DrawnStudy
from compresslab.density.synthesis import Error, expected_error
from compresslab.records import Estimator

POWER = 0.8
"""Probability of a verdict with the number of items given by `items_needed`."""

MOST = 1e12
"""Items that are multiplied by more than this are as good as infinitely many."""


def items_needed(
    study: DrawnStudy,
    ruler: Ruler,
    estimator: Estimator,
    child: Measured,
    parent: Measured,
    tasks: list[str],
    r: LogEstimate | None,
    level: float,
) -> float | None:
    """Items per task that decide r with a probability of `POWER` if its true value is the estimate; infinite if no number does.

    The items' part of the variance falls as 1 / items. The reference's part stays, and so does the variance between published benchmarks
    (`synthesis.expected_error`). `None` where the spread between replicates decides, since more items do not make more of these.

    Args:
        level: of a single test, which is divided by the number of tests.
    """
    replicated = [*child.replicates_apart(parent).values(), *parent.replicates_apart(child).values()]
    if r is None or r.bound or not tasks or any(len(names) > 1 for names in replicated):
        return None
    error = _over_benchmarks(study, ruler, estimator, child, parent, tasks) if child.published else None
    error = error or _over_tasks(study, ruler, estimator, child, parent, tasks)
    tests = max(1, sum(not variant.replicate for variant in study.variants.values()) - 1)
    mean_items = float(np.mean([child.count(task) for task in tasks]))
    factor = factor_that_decides(abs(r.point), error, level / tests)
    return max(mean_items * factor, mean_items + 1)


def factor_that_decides(distance: float, error: Error, level: float) -> float:
    """The least factor of the number of items at which an estimate that far from 0 is told from 0."""

    def decides(factor: float) -> bool:
        variance, degrees = error(factor)
        tails = student.quantiles(np.array([1 - level / 2, POWER]), degrees)
        return bool(math.sqrt(variance) * float(tails.sum()) < distance)

    if not decides(MOST):
        return math.inf
    low, high = 0.0, math.log(MOST)
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _over_tasks(study: DrawnStudy, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, tasks: list[str]) -> Error:
    """The error of a mean over tasks: its items' part and the reference's part, each from draws of its own."""
    of_items, of_ruler = (
        spread(found) ** 2 if (found := part.effective(of, child.name, parent.name, tasks, estimator)) is not None else math.inf
        for part, of in (study.of_items(ruler), study.of_ruler(ruler, child.name, parent.name, tasks))
    )
    return lambda factor: (of_items / factor + of_ruler, student.MAX_DEGREES)


def _over_benchmarks(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, tasks: list[str]
) -> Error | None:
    """The error of a synthesis of several published benchmarks; `None` for fewer than two with a known error, or with a bound."""
    found = study.ratios(ruler, child.name, parent.name, tasks, estimator)
    minor = minor_bounds(found)
    parts = {task: part for task, part in found.items() if part is not None and task not in minor}
    parts = {task: part for task, part in parts.items() if math.isfinite(standard_deviation(part))}
    if len(parts) < 2 or any(part.bound for part in parts.values()):
        return None
    isolated, of = study.of_items(ruler)
    by_items = isolated.ratios(of, child.name, parent.name, list(parts), estimator)
    of_items = np.array([0.0 if (one := by_items[task]) is None else spread(one) ** 2 for task in parts])
    return expected_error(list(parts.values()), of_items)
