"""Capability density: from what a variant answered to effective parameters N_hat, and N_hat over the several counts of N.

Per task N_hat is read twice off the reference: by loss (mean loss of the gold continuation) and by score (mean accuracy). Over tasks
it is the geometric mean: the errors of N_hat are factors, not differences, every task weighs the same whatever its scale, and the
ratio of two means is the mean of the ratios, so that one does not depend on who is divided by whom. Benchmarks of a published
table are weighted by their precision instead (`intervals.precision_mean`): they have 164 to 14,042 items.

A density says where a model stands against the reference's own models, which scatter around their curve; that scatter is in its
interval (`placed_…`). A ratio r of measured models compares two losses on one curve, and the scatter of other models is no part of it.
A published score is another matter: what it says of a model's capability is known only up to that scatter (one Qwen2.5 model lies
2 points of MMLU off its family's curve, which is worth 0.2 in ln N), so it is in r as well, independent for two models that were
trained apart and common to a model and its quantized copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compresslab.density.draws import LOSSES, Answers, Draws
from compresslab.density.intervals import LogEstimate, geometric_mean, on_the_ruler, precision_mean, width_of
from compresslab.density.references.laws import Array, interpolated_ln_params
from compresslab.density.references.reference import REACH, Reference, TaskFit
from compresslab.records import Density, Estimator, Interval, Size, TaskDensity

MINOR = 0.05
"""Share of the precision below which bounds are left out of a mean (and named)."""


@dataclass(frozen=True, eq=False)
class Ruler:
    """A reference as one study reads it.

    Attributes:
        tokens: D0. rows: (resamples,) which resampled fit goes with which draw of items; 0 is the fit itself.
        shares: (resamples,) in [0, 1): which of the reference's runs lends its scatter; the same for all tasks and variants.
        straight: read a family by straight lines between its models instead of its curves; nothing outside them.
        strays: what r is made of holds the scatter of the reference's own models as well.
        exact: leave that scatter out everywhere, to see what the items alone decide.
    """

    reference: Reference
    tokens: float
    rows: NDArray[np.intp]
    shares: Array
    straight: bool = False
    strays: bool = False
    exact: bool = False


@dataclass(frozen=True, eq=False)
class TaskCapability:
    """ln N_hat (parameters) of one variant on one task, with the draws that all variants share. `reason` tells what is missing.

    `placed_by_loss` and `placed_by_score` hold the scatter of the reference's own models as well.
    """

    by_loss: LogEstimate | None = None
    by_score: LogEstimate | None = None
    placed_by_loss: LogEstimate | None = None
    placed_by_score: LogEstimate | None = None
    reason: str = ""

    def by(self, estimator: Estimator) -> LogEstimate | None:
        """The estimate that r is made of."""
        return self.by_loss if estimator == "loss" else self.by_score


def measure_task(ruler: Ruler, task: str, answers: Answers) -> TaskCapability:
    """N_hat of one variant on one task."""
    reference = ruler.reference
    if task not in reference.tasks:
        return TaskCapability(reason=f"the reference {reference.name} has no task {task}")
    fit, reasons = reference.tasks[task], []
    if ruler.straight:
        return _interpolated(fit, answers.score)

    def usable(what: str, drawn: Draws | None, absent: str) -> Draws | None:
        reason = absent if drawn is None else drawn.flaw
        reasons.extend([f"{what}: {reason}"] if reason else [])
        return None if reason else drawn

    by_loss = placed_by_loss = by_score = placed_by_score = None
    absent = "the task has no gold continuation"
    loss = answers.losses.get(reference.unit) if reference.unit in LOSSES else None
    if fit.reads_loss and (drawn := usable("by loss", loss, absent)) is not None:
        scatter = _scatter(fit.loss_left, ruler)
        by_loss = _read(ruler, task, np.array(drawn.mean), drawn.means)
        placed_by_loss = _read(ruler, task, np.array(drawn.mean), drawn.means * np.exp(-scatter))
        reasons += _bound("by loss", by_loss, drawn.mean)
    if fit.score is not None and (drawn := usable("by score", answers.score, "")) is not None:
        scatter = _scatter(fit.score_left, ruler)
        point = reference.loss_of_score(task, np.array(drawn.mean))
        shifted = np.clip(drawn.means - scatter, 0.0, 1.0)
        by_score, placed_by_score = (
            _with_width(ruler, task, _read(ruler, task, point, reference.loss_of_score(task, scores, ruler.rows)), scores)
            for scores in (drawn.means, shifted)
        )
        reasons += _bound("by score", by_score, drawn.mean)
    if ruler.strays:
        by_loss, by_score = placed_by_loss, placed_by_score
    return TaskCapability(by_loss, by_score, placed_by_loss, placed_by_score, "; ".join(reasons))


def _interpolated(fit: TaskFit, score: Draws) -> TaskCapability:
    """By score, between the family's models; the draws hold the score's error alone."""
    point = float(interpolated_ln_params(fit.points, fit.chance or 0.0, np.array(score.mean)))
    if np.isnan(point):
        return TaskCapability(reason=f"{score.mean:.4g} lies outside the scores of the reference's models")
    drawn = interpolated_ln_params(fit.points, fit.chance or 0.0, score.means)
    estimate = LogEstimate(point, drawn, drawn)
    return TaskCapability(by_score=estimate, placed_by_score=estimate)


def _read(ruler: Ruler, task: str, point: Array, drawn: Array) -> LogEstimate:
    reference = ruler.reference
    return on_the_ruler(
        float(reference.ln_params(task, point, ruler.tokens)),
        reference.ln_params(task, drawn, ruler.tokens, ruler.rows),
        reference.parameters_range,
        REACH,
    )


def _with_width(ruler: Ruler, task: str, estimate: LogEstimate, scores: Array) -> LogEstimate:
    """A bound with the standard deviation that a reading there would have: the score's over the curve's slope in ln N."""
    if not estimate.bound:
        return estimate
    step = 0.1
    ends = [ruler.reference.predict(task, math.exp(estimate.point + side), ruler.tokens)[1] or 0.0 for side in (-step, step)]
    slope = max((ends[1] - ends[0]) / (2 * step), 1e-9)
    return replace(estimate, width=float(np.std(scores)) / slope)


def _scatter(left: Array, ruler: Ruler) -> Array:
    """What one of the reference's runs leaves, drawn for each resample; the same run for all tasks."""
    if ruler.exact or not len(left):
        return np.zeros_like(ruler.shares)
    return left[(ruler.shares * len(left)).astype(np.intp)]


def _bound(what: str, estimate: LogEstimate, mean: float) -> list[str]:
    if not estimate.bound:
        return []
    side = "below" if estimate.bound == "<" else "above"
    return [f"{what}: {mean:.4g} lies {side} what the reference is read at, so N_hat is a bound"]


def combine(parts: Mapping[str, LogEstimate | None], *, published: bool) -> LogEstimate | None:
    """One estimate over tasks from those that exist: the geometric mean; of published scores weighted by precision, without the bounds
    that would hardly count (`minor_bounds`)."""
    there = {task: part for task, part in parts.items() if part is not None}
    if not published:
        return geometric_mean(list(there.values()))
    minor = minor_bounds(there)
    return precision_mean([part for task, part in there.items() if task not in minor])


def minor_bounds(parts: Mapping[str, LogEstimate | None]) -> list[str]:
    """The tasks that give only a bound and together carry less than `MINOR` of the precision: a HumanEval near 0 of 164 items must not
    turn what 14,042 items of MMLU say into a bound. Where half of the tasks or more give no more than that, they do count: such a model
    stands at chance, and the one benchmark that it seems to do is no measure of it."""
    weights = {task: width_of(part) ** -2.0 for task, part in parts.items() if part is not None and width_of(part) > 0}
    bounds = [task for task in weights if (part := parts[task]) is not None and part.bound]
    if 2 * len(bounds) >= len(weights):
        return []
    return bounds if 0 < sum(weights[task] for task in bounds) < MINOR * sum(weights.values()) else []


def best_estimator(reference: Reference, bench: Mapping[tuple[str, str], Answers]) -> Estimator:
    """By loss where the reference reads the losses of a task that the study has; else by score."""
    for (_, task), answers in bench.items():
        if task in reference.tasks and reference.tasks[task].reads_loss and reference.unit in answers.losses:
            return "loss"
    return "score"


def bits_count(size: Size) -> float:
    """N counted in stored bits: N times stored bits per parameter over 16, so that bf16 counts as it is."""
    return size.counted * size.effective_bits / 16


def density(
    ruler: Ruler,
    estimator: Estimator,
    size: Size,
    capabilities: Mapping[str, TaskCapability],
    n_time: Mapping[str, float],
    seconds: Mapping[str, float],
    *,
    published: bool = False,
) -> Density:
    """The record of one variant's density. `n_time` and `seconds`: modelled, by hardware profile. `published`: from a table's scores."""
    by_loss = combine({task: c.placed_by_loss for task, c in capabilities.items()}, published=published)
    by_score = combine({task: c.placed_by_score for task, c in capabilities.items()}, published=published)
    main = by_loss if estimator == "loss" else by_score
    return Density(
        reference=ruler.reference.name,
        tokens=ruler.tokens,
        estimator=estimator,
        effective_by_loss=_interval(by_loss),
        effective_by_score=_interval(by_score),
        params=_interval(main, size.counted),
        active=_interval(main, size.active),
        bits=_interval(main, bits_count(size)),
        params_by_score=_interval(by_score, size.counted),
        time={} if main is None else {name: main.over(n).interval() for name, n in n_time.items()},
        modelled_seconds=dict(seconds),
        tasks=[
            TaskDensity(task=task, by_loss=_interval(c.placed_by_loss), by_score=_interval(c.placed_by_score), reason=c.reason)
            for task, c in capabilities.items()
        ],
    )


def _interval(estimate: LogEstimate | None, divisor: float = 1.0) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()
