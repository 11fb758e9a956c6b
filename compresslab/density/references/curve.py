"""A reference as curves of loss or score over model size, for the charts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compresslab.density.references.budget import Budget
from compresslab.density.references.laws import D_UNIT, N_UNIT, Array, loss_law, score_link
from compresslab.density.references.reference import Reference
from compresslab.records import Curve, Density, Estimator

STEPS = 60  # sizes per curve
MARGIN = 4.0  # factor by which a curve extends beyond the fitted sizes and the models on it


def curve(reference: Reference, task: str, budget: Budget, estimator: Estimator | None = None, include: Iterable[float] = ()) -> Curve:
    """One task of a reference along the sizes, each at the token budget `budget`.

    Args:
        estimator: "loss" or "score". The default is losses for a ladder, and scores for a family, whose losses are latent.
        include: sizes in parameters that the curve must also cover.

    Raises:
        BadInput: the reference has no such task.
    """
    fit = reference.task(task)
    fitted = reference.parameters_range
    ends = [end for end in (*fitted, *include) if 0 < end < np.inf]
    params: Array = np.geomspace(min(ends) / MARGIN, max(ends) * MARGIN, STEPS).astype(np.float64)
    values = np.stack([loss_law(theta, params / N_UNIT, budget.of_sizes(params) / D_UNIT) for theta in fit.loss])
    unit = reference.unit if reference.kind == "ladder" else "latent loss"
    if fit.score is not None and (estimator or ("score" if reference.kind == "family" else "loss")) == "score":
        values = np.stack([score_link(phi, row) for phi, row in zip(fit.score, values, strict=True)])
        unit = "score"
    low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
    points = [(float(n), float(score)) for n, score in fit.points] if unit == "score" else []
    return Curve(
        task=task,
        unit=unit,
        params=params.tolist(),
        middle=values[0].tolist(),
        low=low.tolist(),
        high=high.tolist(),
        fitted=fitted,
        points=points,
    )


def curves(name: str, densities: Iterable[Density], sizes: Iterable[float] = ()) -> list[Curve]:
    """The curves of the reference `name` for these densities: one for each task with an estimate.

    Args:
        sizes: sizes of the models in parameters, which the curves also cover.

    Raises:
        BadInput: there is no such reference.
    """
    density_list = list(densities)
    if not density_list:
        return []
    first, reference = density_list[0], Reference.load(name)
    budget = Budget(first.tokens, first.tokens_per_parameter)
    model_sizes, effective = list(sizes), dict[str, list[float]]()
    for density in density_list:
        for task in density.tasks:
            if (estimate := task.by_loss if first.estimator == "loss" else task.by_score) is not None:
                effective.setdefault(task.task, []).append(estimate.value)
    return [curve(reference, task, budget, first.estimator, [*model_sizes, *values]) for task, values in effective.items()]
