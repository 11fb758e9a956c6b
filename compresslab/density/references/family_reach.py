"""How far below and above its sizes a family is read: its smallest and largest models are left out and read back, as a ladder's are.

A left-out model's published scores are read as a study reads them, over all benchmarks, by curves fitted to the other models. The error is
ln of that density over the density of the scores that the curves predict for its size and tokens, which is 1 for a family with one token
budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compresslab.density.capability import combine
from compresslab.density.draws import Measured
from compresslab.density.references.budget import default_budget
from compresslab.density.references.family_scores import MIN_MODELS, FamilyScores
from compresslab.density.references.laws import D_UNIT, N_UNIT, Array
from compresslab.density.references.left_out import MIN_KEPT, Reach, reach_of
from compresslab.density.references.reference import Reference
from compresslab.density.sample import prepare
from compresslab.recipe.schema import DensityConfig

SAME_SIZE = 1.1
"""Models whose sizes differ by less than this factor are left out together."""

RESAMPLES = 40
"""Resampled fits of a reference without some models. They decide how benchmarks are weighted, and no point estimate."""

ANY_SIZE = (1e6, 1e6)

Fit = Callable[[FamilyScores, int], dict[str, Any]]
"""From scores and a number of resamples to the content of a reference's file."""


def family_reach(read: FamilyScores, fit: Fit) -> tuple[Reach, Reach]:
    """The factors below and above the sizes of a family up to which its left-out models read as what they are (`left_out.reach_of`)."""
    groups = sizes(read.n)
    below, above = reach_of(left_out_errors(read, groups, fit)), reach_of(left_out_errors(read, groups[::-1], fit))
    return below, above


def sizes(n: Array) -> list[list[int]]:
    """The models by rising size; those of nearly the same size together."""
    groups: list[list[int]] = []
    for model in np.argsort(n):
        if groups and n[model] < SAME_SIZE * n[groups[-1][0]]:
            groups[-1].append(int(model))
        else:
            groups.append([int(model)])
    return groups


def left_out_errors(read: FamilyScores, groups: list[list[int]], fit: Fit) -> Iterator[tuple[float, Array]]:
    """For the first group left out, the first two, and so on: their distance in size from the models kept, and the errors of all of them.

    A benchmark that fewer than `MIN_MODELS` of the others have is left out, too.
    """
    for count in range(1, len(groups) - MIN_KEPT + 1):
        left = [model for group in groups[:count] for model in group]
        rest = read.keep([model for model in range(len(read.n)) if model not in left])
        rest = rest.only([task for task, row in zip(rest.tasks, rest.scores, strict=True) if np.sum(~np.isnan(row)) >= MIN_MODELS])
        if not rest.tasks:
            return
        reference = replace(Reference.parse(fit(rest, RESAMPLES)), reach=ANY_SIZE)
        ends = [float(read.n[group].mean()) for group in (groups[0], groups[count])]
        yield max(ends) / min(ends), np.array([error(read.only(rest.tasks), model, reference) for model in left])


def error(read: FamilyScores, model: int, reference: Reference) -> float:
    """ln of the density that a model's scores read, over that of the scores predicted for its size and tokens.

    Infinite where one of the two cannot be read, or is a bound.
    """
    rows = [(task, float(score)) for task, score in zip(read.tasks, read.scores[:, model], strict=True) if not np.isnan(score)]
    n, d = float(read.n[model]) * N_UNIT, float(read.d[model]) * D_UNIT
    predicted = {task: reference.predict(task, n, d)[1] or 0.0 for task, _ in rows}
    size, shape = read.weights[model]
    found = []
    for scores in (dict(rows), predicted):
        measured = Measured(name="model", root="model", size=size, shape=shape, published=scores, table="left out")
        study = prepare([measured], DensityConfig(reference=reference.name), [])
        ruler = study.ruler(reference, default_budget())
        read_off = {task: study.capability(ruler, "model", task).by_score_with_scatter for task in scores}
        estimate = combine(read_off, published=True)
        if estimate is None or estimate.bound:
            return math.inf
        found.append(estimate.point)
    return found[0] - found[1]
