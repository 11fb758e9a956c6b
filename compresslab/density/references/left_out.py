"""What leaving out model sizes says of a reference: which form of its law predicts better, and how far from its sizes it can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from compresslab.density.references.budget import default_budget
from compresslab.density.references.fitting import fit_losses, loss_starts, scales
from compresslab.density.references.laws import Array, ln_n_along, loss_law

Data = tuple[Array, Array, Array]

MIN_KEPT = 3
"""Fewer sizes leave a law with an exponent and an offset to chance."""

TYPICAL, WORST = 1.25, 1.6
"""Factors by which the median and the worst run of a left-out size may miss its density, if the reference is to be read that far."""

WEIGHT_DRAWS, WEIGHT_SEED = 2000, 20241206


@dataclass(frozen=True)
class FittedLaws:
    """The loss laws of a reference's tasks with their data. `scale` is (tasks,), `thetas` is (tasks, 5)."""

    tasks: Sequence[str]
    data: Sequence[Data]
    scale: Array
    thetas: Array
    irreducible: bool


def data_of(rows: pd.DataFrame) -> Data:
    """n (1e9), d (1e11) and loss of some runs on one task."""
    n, d, loss = (rows[name].to_numpy(dtype=np.float64) for name in ("n", "d", "loss"))
    return n, d, loss


def fit_laws(tasks: Sequence[str], data: Sequence[Data], *, irreducible: bool) -> FittedLaws:
    """Fit the loss laws of all tasks: once to estimate each task's scatter, then with the tasks weighted by it."""
    ones = [np.ones(len(n)) for n, _, _ in data]
    rough = fit_losses(data, ones, np.full(len(data), 0.01), loss_starts(data), irreducible=irreducible)
    scale = scales(rough, data)
    return FittedLaws(tasks, data, scale, fit_losses(data, ones, scale, [*loss_starts(data), rough], irreducible=irreducible), irreducible)


def without(
    tasks: Sequence[str], by_task: Mapping[str, pd.DataFrame], sizes: Sequence[str], *, irreducible: bool
) -> tuple[list[Data], FittedLaws]:
    """The rows of some sizes by task, and laws fitted on all other sizes."""
    left = {task: by_task[task]["size"].isin(list(sizes)) for task in tasks}
    laws = fit_laws(tasks, [data_of(by_task[task][~left[task]]) for task in tasks], irreducible=irreducible)
    return [data_of(by_task[task][left[task]]) for task in tasks], laws


def left_out(tasks: Sequence[str], by_task: Mapping[str, pd.DataFrame], *, irreducible: bool) -> dict[str, tuple[list[Data], FittedLaws]]:
    """For each size: its rows by task, and laws fitted on all other sizes."""
    return {str(size): without(tasks, by_task, [size], irreducible=irreducible) for size in by_task[tasks[0]]["size"].unique()}


def size_misses(tasks: Sequence[str], by_task: Mapping[str, pd.DataFrame], *, irreducible: bool) -> list[Array]:
    """For each left-out size, ln(predicted / measured loss): (tasks, runs)."""
    found = left_out(tasks, by_task, irreducible=irreducible).values()
    return [
        np.stack([np.log(loss_law(theta, n, d) / loss) for theta, (n, d, loss) in zip(laws.thetas, left, strict=True)])
        for left, laws in found
    ]


def form_weight(first: Sequence[Array], second: Sequence[Array]) -> float:
    """The weight of the first of two forms by their misses on left-out sizes: pseudo-BMA+ (Yao et al. 2018, arXiv 1704.02030).

    A size is one observation, because its runs and tasks miss together: its log density is the mean of those of its runs, and the miss of a
    run that over its tasks. The Bayesian bootstrap over sizes keeps few sizes from deciding for one form alone.
    """
    densities = []
    for misses in (first, second):
        of_runs = [miss.mean(axis=0) for miss in misses]
        variance = float(np.mean([np.mean(run**2) for run in of_runs]))
        densities.append([-0.5 * np.log(variance) - np.mean(run**2) / (2 * variance) for run in of_runs])
    difference = np.array(densities[0]) - np.array(densities[1])
    shares = np.random.default_rng(WEIGHT_SEED).dirichlet(np.ones(len(difference)), size=WEIGHT_DRAWS)
    return float(np.mean(1 / (1 + np.exp(-len(difference) * shares @ difference))))


def density_errors(laws: FittedLaws, left: Sequence[Data], per_parameter: float) -> Array:
    """(runs,) ln of the density that left-out runs are read at, where it should be 1: the mean over tasks.

    A run was trained on other budgets than D0. Read at D0, its measured loss gives one size, and the loss that the laws predict from its
    N and D another; the error is their ratio.
    """
    errors = []
    for theta, (n, d, loss) in zip(laws.thetas, left, strict=True):
        predicted = loss_law(theta, n, d)
        errors.append(ln_n_along(theta, loss, per_parameter) - ln_n_along(theta, predicted, per_parameter))
    return np.asarray(np.mean(errors, axis=0))


class Reach(NamedTuple):
    """How far beyond one end of its sizes a reference is read. `tested`: at that distance itself, else interpolated to it."""

    factor: float
    tested: bool


def reach(tasks: Sequence[str], by_task: Mapping[str, pd.DataFrame], *, irreducible: bool) -> tuple[Reach, Reach]:
    """How far below and above its sizes a reference is read: as far as left-out runs still read as what they are (`reach_of`).

    The smallest sizes are left out, one more each time, then the largest, as long as `MIN_KEPT` remain.
    """
    sizes = by_task[tasks[0]].groupby("size")["n"].mean().sort_values()
    per_parameter = default_budget().at(1.0)

    def tested(ordered: pd.Series[float]) -> Iterator[tuple[float, Array]]:
        for count in range(1, len(ordered) - MIN_KEPT + 1):
            left, laws = without(tasks, by_task, list(ordered.index[:count]), irreducible=irreducible)
            factor = float(max(ordered.iloc[0] / ordered.iloc[count], ordered.iloc[count] / ordered.iloc[0]))
            yield factor, density_errors(laws, left, per_parameter)

    return reach_of(tested(sizes)), reach_of(tested(sizes[::-1]))


def in_file(ends: tuple[Reach, Reach]) -> dict[str, list[Any]]:
    """The reach of a reference below and above its sizes as its file has it."""
    return {"reach": [end.factor for end in ends], "reach_tested": [end.tested for end in ends]}


def reach_of(tested: Iterable[tuple[float, Array]]) -> Reach:
    """The largest distance in size, as a factor, at which all left-out runs are read within `TYPICAL` (median) and `WORST`.

    If even the nearest left-out size is not, its error is taken to grow in proportion to ln of the distance, and the reach is the part of
    the distance at which it would be. A reach of 1 would make a bound of every second reading of the family's own last model. An error
    that is not a number is taken as infinite.

    Args:
        tested: distances, the nearest first, each with the ln errors of the runs left out. It is not read further than needed.
    """
    reached = 1.0
    for factor, errors in tested:
        distances = np.where(np.isnan(errors), np.inf, np.abs(errors))
        missed = max(float(np.median(distances)) / np.log(TYPICAL), float(distances.max()) / np.log(WORST))
        if missed > 1:
            return Reach(round(reached, 2), True) if reached > 1 else Reach(round(float(factor ** (1 / missed)), 2), False)
        reached = factor
    return Reach(round(reached, 2), reached > 1)
