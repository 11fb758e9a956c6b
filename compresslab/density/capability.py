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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compresslab.density.draws import LOSSES, Answers, Draws
from compresslab.density.intervals import LogEstimate, geometric_mean, on_the_ruler, precision_mean
from compresslab.density.laws import Array, interpolated_ln_params
from compresslab.density.reference import REACH, Reference, TaskFit
from compresslab.records import Density, Estimator, Interval, Size, TaskDensity


@dataclass(frozen=True, eq=False)
class Ruler:
    """A reference as one study reads it.

    Attributes:
        tokens: D0. rows: (resamples,) which resampled fit goes with which draw of items; 0 for the fit itself.
        shares: (resamples,) in [0, 1): which of the reference's runs lends its scatter; the same for all tasks and variants.
        straight: read a family by straight lines between its models instead of its curves; nothing outside them.
    """

    reference: Reference
    tokens: float
    rows: NDArray[np.intp] | int
    shares: Array
    straight: bool = False


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

    def placed(self, estimator: Estimator) -> LogEstimate | None:
        """The estimate that the density is made of."""
        return self.placed_by_loss if estimator == "loss" else self.placed_by_score


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
        scatter = _scatter(fit.loss_left, ruler.shares)
        by_loss = _read(ruler, task, np.array(drawn.mean), drawn.means)
        placed_by_loss = _read(ruler, task, np.array(drawn.mean), drawn.means * np.exp(-scatter))
        reasons += _bound("by loss", by_loss, drawn.mean)
    if fit.score is not None and (drawn := usable("by score", answers.score, "")) is not None:
        scatter = _scatter(fit.score_left, ruler.shares)
        point = reference.loss_of_score(task, np.array(drawn.mean))
        by_score = _read(ruler, task, point, reference.loss_of_score(task, drawn.means, ruler.rows))
        shifted = np.clip(drawn.means - scatter, 0.0, 1.0)
        placed_by_score = _read(ruler, task, point, reference.loss_of_score(task, shifted, ruler.rows))
        if reference.kind == "family":
            by_score = placed_by_score
        reasons += _bound("by score", by_score, drawn.mean)
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


def _scatter(left: Array, shares: Array) -> Array:
    """What one of the reference's runs leaves, drawn for each resample; the same run for all tasks."""
    return left[(shares * len(left)).astype(np.intp)] if len(left) else np.zeros_like(shares)


def _bound(what: str, estimate: LogEstimate, mean: float) -> list[str]:
    if not estimate.bound:
        return []
    side = "below" if estimate.bound == "<" else "above"
    return [f"{what}: {mean:.4g} lies {side} what the reference is read at, so N_hat is a bound"]


def combine(reference: Reference, parts: Sequence[LogEstimate | None]) -> LogEstimate | None:
    """One estimate over tasks from those that exist, in the way that the reference's kind asks for."""
    there = [part for part in parts if part is not None]
    return precision_mean(there) if reference.kind == "family" else geometric_mean(there)


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
) -> Density:
    """The record of one variant's density. `n_time` and `seconds`: modelled, by hardware profile."""
    by_loss = combine(ruler.reference, [c.placed_by_loss for c in capabilities.values()])
    by_score = combine(ruler.reference, [c.placed_by_score for c in capabilities.values()])
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
