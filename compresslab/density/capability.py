"""Capability density: effective parameters N_hat from a variant's results, divided by each count of N.

N_hat of a task is read off the reference in two ways: by loss (mean loss of the gold continuation) and by score (mean accuracy).
N_hat over tasks is the geometric mean, for three reasons: the errors of N_hat are factors, every task has the same weight whatever its
scale, and the ratio of two means equals the mean of the ratios. Benchmarks of a published table have 164 to 14,042 items and are
joined by random-effects synthesis instead (`synthesis`).

A density compares a model with the reference's own models, which scatter around their curve. Its interval contains that scatter
(`…_with_scatter`). A ratio r contains it for every training run that lies behind one of the two models and not behind the other: one for
a child that was trained on, two for models that were trained separately, none for a copy (pruned, quantized). A second training run would
give another model, and the ladder's own runs, whose density is 1, are read at densities that differ as much. Where a step was run with
several seeds, the spread between these replicates stands in place of that scatter (`sample.DrawnStudy.ratios`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compresslab.catalog.published_settings import TASKS, mismatch
from compresslab.density.draws import LOSSES, Draws, TaskDraws
from compresslab.density.intervals import LogEstimate, geometric_mean, standard_deviation
from compresslab.density.references.budget import Budget
from compresslab.density.references.laws import Array, interpolated_ln_params
from compresslab.density.references.reference import Reference, TaskFit
from compresslab.density.synthesis import Synthesis, synthesize
from compresslab.density.time.drawn_times import DrawnTime
from compresslab.records import Density, Estimator, Interval, Shape, Size, TaskDensity

MINOR_PRECISION_SHARE = 0.05
"""Bounds with less than this share of the precision are left out of a mean and named in its reason."""


@dataclass(frozen=True, eq=False)
class Ruler:
    """A reference with the settings by which one study reads it.

    Attributes:
        budget: D0, the training tokens given to the reference.
        fit_rows: (resamples,) index of the resampled fit for each draw of items; 0 is the fit itself.
        scatter_shares: for each training run whose scatter is drawn, (resamples,) in [0, 1): selects the run of the reference whose
            residual each draw takes, for all tasks.
        interpolate: read a family by straight lines between its models instead of its curves, with no value outside them.
        without_scatter: no estimate contains that scatter; used to find the variance that comes from the items alone.
        without_replicates: a replicated step has the reference's scatter, and not that between its replicates.
    """

    reference: Reference
    budget: Budget
    fit_rows: NDArray[np.intp]
    scatter_shares: tuple[Array, ...]
    interpolate: bool = False
    without_scatter: bool = False
    without_replicates: bool = False


@dataclass(frozen=True, eq=False)
class TaskCapability:
    """ln N_hat (parameters) of one variant on one task, with the draws that all variants share. `reason` names what is missing.

    `by_loss_with_scatter` and `by_score_with_scatter` also contain the scatter of the reference's own models.
    """

    by_loss: LogEstimate | None = None
    by_score: LogEstimate | None = None
    by_loss_with_scatter: LogEstimate | None = None
    by_score_with_scatter: LogEstimate | None = None
    reason: str = ""

    def with_scatter(self, estimator: Estimator) -> LogEstimate | None:
        """The estimate from which densities and r are computed."""
        return self.by_loss_with_scatter if estimator == "loss" else self.by_score_with_scatter


def measure_task(ruler: Ruler, task: str, answers: TaskDraws) -> TaskCapability:
    """N_hat of one variant on one task."""
    reference = ruler.reference
    if task not in reference.tasks:
        reason = mismatch(task, reference.name, reference.tasks) if task in TASKS else f"the reference {reference.name} has no task {task}"
        return TaskCapability(reason=reason)
    fit, reasons = reference.tasks[task], []
    if ruler.interpolate:
        return _interpolated(fit, answers.score)

    def usable(estimator_name: str, drawn: Draws | None, reason_if_absent: str) -> Draws | None:
        reason = reason_if_absent if drawn is None else drawn.no_interval_reason
        reasons.extend([f"{estimator_name}: {reason}"] if reason else [])
        return None if reason else drawn

    by_loss = by_loss_with_scatter = by_score = by_score_with_scatter = None
    reason_if_absent = "the task has no gold continuation"
    loss = answers.losses.get(reference.unit) if reference.unit in LOSSES else None
    if fit.reads_loss and (drawn := usable("by loss", loss, reason_if_absent)) is not None:
        scatter = _drawn_scatter(fit.loss_residuals, ruler)
        by_loss = _ln_effective(ruler, task, np.array(drawn.mean), drawn.means)
        by_loss_with_scatter = _ln_effective(ruler, task, np.array(drawn.mean), drawn.means * np.exp(-scatter))
        reasons += _bound_reason("by loss", by_loss, drawn.mean)
    if fit.score is not None and (drawn := usable("by score", answers.score, "")) is not None:
        scatter = _drawn_scatter(fit.score_residuals, ruler)
        point = reference.loss_of_score(task, np.array(drawn.mean))
        shifted = np.clip(drawn.means - scatter, 0.0, 1.0)
        by_score, by_score_with_scatter = (
            _with_width(ruler, task, _ln_effective(ruler, task, point, reference.loss_of_score(task, scores, ruler.fit_rows)), scores)
            for scores in (drawn.means, shifted)
        )
        reasons += _bound_reason("by score", by_score, drawn.mean)
    return TaskCapability(by_loss, by_score, by_loss_with_scatter, by_score_with_scatter, "; ".join(reasons))


def _interpolated(fit: TaskFit, score: Draws) -> TaskCapability:
    """N_hat by score, interpolated between the family's models. The draws contain only the score's error."""
    point = float(interpolated_ln_params(fit.points, fit.chance or 0.0, np.array(score.mean)))
    if np.isnan(point):
        return TaskCapability(reason=f"{score.mean:.4g} lies outside the scores of the reference's models")
    drawn = interpolated_ln_params(fit.points, fit.chance or 0.0, score.means)
    estimate = LogEstimate(point, drawn, drawn)
    return TaskCapability(by_score=estimate, by_score_with_scatter=estimate)


def _ln_effective(ruler: Ruler, task: str, point: Array, drawn: Array) -> LogEstimate:
    return ruler.reference.reading(task, point, drawn, ruler.budget, ruler.fit_rows)


def _with_width(ruler: Ruler, task: str, estimate: LogEstimate, scores: Array) -> LogEstimate:
    """A bound with the standard deviation of a reading at that point: that of the score, divided by the curve's slope in ln N."""
    if not estimate.bound:
        return estimate
    step = 0.1
    sizes = [math.exp(estimate.point + side) for side in (-step, step)]
    ends = [ruler.reference.predict(task, size, ruler.budget.at(size))[1] or 0.0 for size in sizes]
    slope = max((ends[1] - ends[0]) / (2 * step), 1e-9)
    return replace(estimate, width=float(np.std(scores)) / slope)


def _drawn_scatter(residuals: Array, ruler: Ruler) -> Array:
    """For each resample, the sum of a residual of the reference for each training run; the same runs for all tasks."""
    drawn = np.zeros(len(ruler.fit_rows))
    if not ruler.without_scatter and len(residuals):
        for shares in ruler.scatter_shares:
            drawn += residuals[(shares * len(residuals)).astype(np.intp)]
    return drawn


def _bound_reason(estimator_name: str, estimate: LogEstimate, mean: float) -> list[str]:
    if not estimate.bound:
        return []
    side = "below" if estimate.bound == "<" else "above"
    return [f"{estimator_name}: {mean:.4g} lies {side} what the reference is read at, so N_hat is a bound"]


def combine(parts: Mapping[str, LogEstimate | None], *, published: bool) -> LogEstimate | None:
    """One estimate over all tasks that have one: the geometric mean, or for published scores their synthesis."""
    if published:
        synthesis = combine_published(parts)
        return None if synthesis is None else synthesis.mean
    return geometric_mean([part for part in parts.values() if part is not None])


def combine_published(parts: Mapping[str, LogEstimate | None], *, equal_weights: bool = False) -> Synthesis | None:
    """The synthesis of published benchmarks without `minor_bounds`."""
    minor = minor_bounds(parts)
    return synthesize([part for task, part in parts.items() if part is not None and task not in minor], equal_weights=equal_weights)


def minor_bounds(parts: Mapping[str, LogEstimate | None]) -> list[str]:
    """The tasks that give only a bound and together have less than `MINOR_PRECISION_SHARE` of the precision.

    Without this rule a HumanEval score near 0 of 164 items would turn the estimate from 14,042 items of MMLU into a bound. If half of
    the tasks or more give only bounds, none is minor: such a model answers at chance, and one other benchmark does not measure it.
    """
    weights = {task: standard_deviation(part) ** -2.0 for task, part in parts.items() if part is not None and standard_deviation(part) > 0}
    bounds = [task for task in weights if (part := parts[task]) is not None and part.bound]
    if 2 * len(bounds) >= len(weights):
        return []
    return bounds if 0 < sum(weights[task] for task in bounds) < MINOR_PRECISION_SHARE * sum(weights.values()) else []


def best_estimator(reference: Reference, draws: Mapping[tuple[str, str], TaskDraws]) -> Estimator:
    """ "loss" if the reference reads the losses of a task of the study, else "score"."""
    for (_, task), answers in draws.items():
        if task in reference.tasks and reference.tasks[task].reads_loss and reference.unit in answers.losses:
            return "loss"
    return "score"


def bits_count(size: Size, shape: Shape) -> float:
    """N counted in stored bits: N times the stored bits of a parameter that N counts, divided by 16, so that a bf16 model has its own N.

    An input embedding that is not tied is no part of N, and its bits (usually 16) are none of its bits.
    """
    return size.counted * shape.weight_bits / 16


def density(
    ruler: Ruler,
    estimator: Estimator,
    size: Size,
    shape: Shape,
    capabilities: Mapping[str, TaskCapability],
    times: Mapping[str, DrawnTime],
    *,
    published: bool = False,
) -> Density:
    """The record of one variant's density.

    Args:
        times: seconds and N_time, by hardware profile.
        published: the scores come from a published table.
    """
    by_loss = combine({task: c.by_loss_with_scatter for task, c in capabilities.items()}, published=published)
    by_score = combine({task: c.by_score_with_scatter for task, c in capabilities.items()}, published=published)
    main = by_loss if estimator == "loss" else by_score
    return Density(
        reference=ruler.reference.name,
        tokens=ruler.budget.tokens,
        tokens_per_parameter=ruler.budget.per_parameter,
        estimator=estimator,
        effective_by_loss=_interval(by_loss),
        effective_by_score=_interval(by_score),
        params=_interval(main, size.counted),
        active=_interval(main, size.active),
        bits=_interval(main, bits_count(size, shape)),
        params_by_score=_interval(by_score, size.counted),
        time={} if main is None else {name: main.over(time.n).interval() for name, time in times.items()},
        modelled_seconds={name: math.exp(time.modelled.point) for name, time in times.items()},
        modelled_interval={name: time.modelled.interval() for name, time in times.items()},
        engines={name: time.engine for name, time in times.items()},
        tasks=[
            TaskDensity(task=task, by_loss=_interval(c.by_loss_with_scatter), by_score=_interval(c.by_score_with_scatter), reason=c.reason)
            for task, c in capabilities.items()
        ],
    )


def _interval(estimate: LogEstimate | None, divisor: float = 1.0) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()
