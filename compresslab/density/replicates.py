"""What the replicates of a step say of its scatter, beside what the reference's own training runs say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compresslab.density.capability import Ruler, combine
from compresslab.density.draws import Measured
from compresslab.density.intervals import LogEstimate, spread
from compresslab.density.sample import DrawnStudy
from compresslab.records import Estimator


def spreads(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, tasks: Sequence[str], r: LogEstimate | None
) -> dict[str, Any]:
    """The fields of a `Comparison` on replicates; empty if none set the two apart.

    Several replicated steps may set them apart. The fields are on the last one.
    """
    groups = child.replicates_apart(parent)
    if not groups:
        return {}
    step, names = list(groups.items())[-1]
    if len(names) < 2:
        return {}
    found = [points for task in tasks if (points := study.points(ruler, names, task, estimator)) is not None]
    fields: dict[str, Any] = {"replicates": len(names)}
    if step in child.runs_apart(parent):
        fields["spread_of_reference"] = _spread_of_reference(study, ruler, estimator, child, step, tasks)
    if not found:
        return fields
    over_tasks = np.mean(found, axis=0)
    if child.name in names and r is not None and not r.bound:
        fields["ratio_of_each"] = [math.exp(r.point + deviation) for deviation in over_tasks - over_tasks.mean()]
    return fields | {"spread_of_replicates": float(np.std(over_tasks, ddof=1))}


def _spread_of_reference(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, variant: Measured, run: str, tasks: Sequence[str]
) -> float | None:
    """Standard deviation of ln N_hat of a variant by the reference's scatter of one training run alone; `None` without a finite one."""
    at_fit = replace(ruler, fit_rows=np.zeros_like(ruler.fit_rows))
    isolated = study.without_items([variant.name], tasks)
    estimate = combine(
        {task: isolated.capability(at_fit, variant.name, task, (run,)).with_scatter(estimator) for task in tasks}, published=False
    )
    found = math.inf if estimate is None else spread(estimate)
    return found if math.isfinite(found) else None
