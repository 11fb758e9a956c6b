"""Capability density: from per-item results to effective parameters N_hat, and N_hat over the several counts of N.

Per task N_hat is read twice off the reference: by loss (mean bits per byte) and by score (mean accuracy). Over tasks it
is the geometric mean: the errors of N_hat are factors, not differences, every task weighs the same whatever its scale,
and the ratio of two means is the mean of the ratios, so that one does not depend on who is divided by whom.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compresslab.density.intervals import Array, LogEstimate, geometric_mean, on_the_ruler
from compresslab.density.reference import REACH, Reference
from compresslab.errors import BadInput
from compresslab.records import Density, Interval, ItemScores, Size, TaskDensity

MIN_ITEMS = 10
"""Fewer items give no estimate: a bootstrap of so few values understates their spread badly."""

CHUNK = 4_000_000
"""Most numbers in one block of resampling weights (32 MB)."""


@dataclass(frozen=True, eq=False)
class Draws:
    """One column of one variant on one task: per-item values, their mean, and the mean over resampled items."""

    values: Array
    mean: float
    means: Array

    @property
    def flaw(self) -> str:
        """Why no interval can be had from these items, or ""."""
        if len(self.values) < MIN_ITEMS:
            return f"{len(self.values)} items are too few for an interval (at least {MIN_ITEMS})"
        if np.ptp(self.values) == 0:
            return f"all {len(self.values)} items have the same value, so nothing tells how sure it is"
        return ""


@dataclass(frozen=True, eq=False)
class TaskCapability:
    """ln N_hat (parameters) of one variant on one task, with the draws that all variants share. `reason` tells what is missing."""

    by_loss: LogEstimate | None
    by_score: LogEstimate | None
    reason: str


def check(variant: str, task: str, scores: ItemScores) -> None:
    """Refuse per-item results that are no results; the message names variant, task and item. Raises BadInput."""
    where, items = f"{variant}, {task}", scores.item
    if not items:
        raise BadInput(f"{where}: no items")
    if len(set(items)) != len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise BadInput(f"{where}: item {twice} stands there twice")
    columns = {"correct": (scores.correct, 1.0)}
    if scores.bits_per_byte is not None:
        columns["bits_per_byte"] = (scores.bits_per_byte, np.inf)
    for name, (column, most) in columns.items():
        values = np.asarray(column, dtype=np.float64)
        if len(values) != len(items):
            raise BadInput(f"{where}: {len(items)} items, but {len(values)} values of {name}")
        bad = ~(np.isfinite(values) & (values >= 0) & (values <= most))
        if bad.any():
            first = int(np.argmax(bad))
            allowed = "between 0 and 1" if most == 1.0 else "finite and not negative"
            raise BadInput(f"{where}: {name} of item {items[first]} is {values[first]}; it must be {allowed}")


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream that depends on the seed and its purpose alone, never on which variants are compared."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def resampled_means(columns: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Means over items drawn with replacement: (items, k) columns to (resamples, k), the same draws for every column."""
    n = len(columns)
    rows = max(1, CHUNK // n)
    blocks = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        blocks.append(weights @ columns / n)
    return np.concatenate(blocks)


def measure_task(
    reference: Reference, task: str, loss: Draws | None, score: Draws, tokens: float, rows: NDArray[np.intp]
) -> TaskCapability:
    """N_hat of one variant on one task.

    Args:
        loss: bits per byte, `None` for tasks without a gold continuation.
        score: accuracy.
        tokens: D0.
        rows: (resamples,) which resampled fit goes with which draw of items; the same for all tasks and variants.
    """
    if task not in reference.tasks:
        return TaskCapability(None, None, f"the reference {reference.name} has no task {task}")
    reasons = []

    def read(what: str, draws: Draws, point_loss: Array, drawn_loss: Array) -> LogEstimate | None:
        if draws.flaw:
            reasons.append(f"{what}: {draws.flaw}")
            return None
        point = float(reference.ln_params(task, point_loss, tokens))
        estimate = on_the_ruler(point, reference.ln_params(task, drawn_loss, tokens, rows), reference.parameters_range, REACH)
        if estimate.bound:
            side = "below" if estimate.bound == "<" else "above"
            reasons.append(f"{what}: {draws.mean:.4g} lies {side} what the reference is read at, so N_hat is a bound")
        return estimate

    by_loss = None
    if loss is None:
        reasons.append("by loss: the task has no gold continuation")
    else:
        by_loss = read("by loss", loss, np.array(loss.mean), loss.means)
    by_score = read(
        "by score",
        score,
        reference.loss_of_score(task, np.array(score.mean)),
        reference.loss_of_score(task, score.means, rows),
    )
    return TaskCapability(by_loss, by_score, "; ".join(reasons))


def pooled(capabilities: Mapping[str, TaskCapability]) -> tuple[LogEstimate | None, LogEstimate | None]:
    """ln N_hat over tasks by loss and by score: geometric means over the tasks that have an estimate."""
    by_loss = [c.by_loss for c in capabilities.values() if c.by_loss is not None]
    by_score = [c.by_score for c in capabilities.values() if c.by_score is not None]
    return geometric_mean(by_loss), geometric_mean(by_score)


def bits_count(size: Size) -> float:
    """N counted in stored bits: N times stored bits per parameter over 16, so that bf16 counts as it is."""
    return size.counted * size.effective_bits / 16


def density(
    reference: Reference,
    tokens: float,
    size: Size,
    capabilities: Mapping[str, TaskCapability],
    n_time: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Density:
    """The record of one variant's density. `n_time` and `seconds`: modelled, by hardware profile."""
    by_loss, by_score = pooled(capabilities)
    return Density(
        reference=reference.name,
        tokens=tokens,
        effective_by_loss=_interval(by_loss),
        effective_by_score=_interval(by_score),
        params=_interval(by_loss, size.counted),
        active=_interval(by_loss, size.active),
        bits=_interval(by_loss, bits_count(size)),
        params_by_score=_interval(by_score, size.counted),
        time={} if by_loss is None else {name: by_loss.over(n).interval() for name, n in n_time.items()},
        modelled_seconds=dict(seconds),
        tasks=[
            TaskDensity(task=task, by_loss=_interval(c.by_loss), by_score=_interval(c.by_score), reason=c.reason)
            for task, c in capabilities.items()
        ],
    )


def _interval(estimate: LogEstimate | None, divisor: float = 1.0) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()
