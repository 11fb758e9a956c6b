"""Resampled means: what every variant answered, with the draws that all of them share.

Items are drawn with replacement, the same draws for every variant that answered them, so that what child and parent have in common
(hard items) cancels in their ratio. Where a benchmark is made of many groups (subjects), whole groups are drawn. Random streams depend
on the seed and the task alone: adding a variant to a study changes no figure of the others. A published score has no items; its draws
are those of a share of its benchmark's items, and those of parent and child are independent, which is wider than the truth where both
answered the same items.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compresslab.catalog.published_scores import BENCHMARKS
from compresslab.density.references.laws import Array
from compresslab.errors import BadInput
from compresslab.records import ItemScores, Record, Shape, Size

MIN_ITEMS = 10
"""Fewer items give no estimate: a bootstrap of so few values understates their spread badly."""

MIN_GROUPS = 10
"""Fewer groups than this are not drawn: their spread would say too little."""

CHUNK = 4_000_000
"""Most numbers in one block of resampling weights (32 MB)."""

LOSSES = {"bits per byte": "bits_per_byte", "bits per word": "logprob"}
"""Unit of a reference's loss -> the column of per-item results that it is computed from."""


class Measured(Record):
    """What one variant weighs and how it answered. `parent` is "" for the root.

    Attributes:
        items: per-item results by task. published: scores in [0, 1] by benchmark, for a model that was not run here.
        table: where the published scores stand.
        same_as: the variant whose peculiarities this one shares, being the same trained weights (a quantized model its parent's).
    """

    name: str
    parent: str = ""
    root: str
    size: Size
    shape: Shape
    items: dict[str, ItemScores] = Field(default_factory=dict)
    published: dict[str, float] = Field(default_factory=dict)
    table: str = ""
    same_as: str = ""

    @property
    def tasks(self) -> list[str]:
        """What it answered, in order."""
        return [*self.items, *self.published]

    def count(self, task: str) -> int:
        """Number of items of a task that it answered."""
        return len(self.items[task].item) if task in self.items else BENCHMARKS[task][0]


@dataclass(frozen=True, eq=False)
class Draws:
    """One quantity of one variant on one task: its mean, its mean over resampled items, per-item values if there are any, and why it
    gives no interval, or ""."""

    mean: float
    means: Array
    values: Array | None
    flaw: str


@dataclass(frozen=True, eq=False)
class Answers:
    """What one variant answered on one task: the losses by unit, and the score."""

    losses: dict[str, Draws]
    score: Draws


Bench = dict[tuple[str, str], Answers]
"""By (variant, task)."""


def check(variant: str, task: str, scores: ItemScores) -> None:
    """Refuse per-item results that are no results; the message names variant, task and item. Raises BadInput."""
    where, items = f"{variant}, {task}", scores.item
    if not items:
        raise BadInput(f"{where}: no items")
    if len(set(items)) != len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise BadInput(f"{where}: item {twice} stands there twice")
    columns = {"correct": (scores.correct, 0.0, 1.0)}
    if scores.bits_per_byte is not None:
        columns["bits_per_byte"] = (scores.bits_per_byte, 0.0, np.inf)
    if scores.logprob is not None:
        columns["logprob"] = (scores.logprob, -np.inf, 0.0)
    for name, (column, least, most) in columns.items():
        values = np.asarray(column, dtype=np.float64)
        if len(values) != len(items):
            raise BadInput(f"{where}: {len(items)} items, but {len(values)} values of {name}")
        bad = ~(np.isfinite(values) & (values >= least) & (values <= most))
        if bad.any():
            first = int(np.argmax(bad))
            allowed = {"correct": "between 0 and 1", "logprob": "finite and not positive"}.get(name, "finite and not negative")
            raise BadInput(f"{where}: {name} of item {items[first]} is {values[first]}; it must be {allowed}")


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream that depends on the seed and its purpose alone, never on which variants are compared."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def groups_of(items: Sequence[str]) -> NDArray[np.int64] | None:
    """The number of each item's group, where a benchmark is made of enough of them (57 subjects of MMLU), else nothing.

    Items of one subject share their examples and their matter, so what is drawn anew is the subject.
    """
    names = [item.partition("/")[0] for item in items if "/" in item]
    if len(names) < len(items):
        return None
    _, numbers = np.unique(names, return_inverse=True)
    return numbers.astype(np.int64) if MIN_GROUPS <= len(set(names)) < len(items) else None


def resampled_means(columns: Array, resamples: int, rng: np.random.Generator, groups: NDArray[np.int64] | None = None) -> Array:
    """Means over items drawn with replacement: (items, k) columns to (resamples, k), the same draws for every column.

    Args:
        groups: (items,) of each item; whole groups are then drawn, and the mean is over the items that came with them.
    """
    if groups is not None:
        sizes = np.bincount(groups).astype(np.float64)
        sums = np.stack([np.bincount(groups, weights=column) for column in columns.T], axis=1)
        # Of means over as many groups as there are, the number of groups cancels.
        drawn = resampled_means(np.concatenate([sums, sizes[:, None]], axis=1), resamples, rng)
        return drawn[:, :-1] / drawn[:, -1:]
    n = len(columns)
    rows = max(1, CHUNK // n)
    blocks = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        blocks.append(weights @ columns / n)
    return np.concatenate(blocks)


def draw(variants: Sequence[Measured], resamples: int, seed: int) -> Bench:
    """Resample every task: the same draws for all variants that answered equally many items of it.

    Raises:
        BadInput: results that are no results.
    """
    bench: Bench = {}
    for variant in variants:
        for task, scores in variant.items.items():
            check(variant.name, task, scores)
        for task, score in variant.published.items():
            bench[variant.name, task] = of_table(variant.name, task, score, resamples, seed)
    for task in dict.fromkeys(task for variant in variants for task in variant.items):
        answered = [variant for variant in variants if task in variant.items]
        for n in sorted({variant.count(task) for variant in answered}):
            same = [variant for variant in answered if variant.count(task) == n]
            _of_items(bench, same, task, resamples, seed)
    return bench


def _of_items(bench: Bench, variants: Sequence[Measured], task: str, resamples: int, seed: int) -> None:
    columns: list[tuple[str, str, Array]] = []
    for variant in variants:
        scores = variant.items[task]
        columns.append((variant.name, "score", np.asarray(scores.correct, dtype=np.float64)))
        if scores.bits_per_byte is not None:
            columns.append((variant.name, "bits per byte", np.asarray(scores.bits_per_byte, dtype=np.float64)))
        if scores.logprob is not None:
            columns.append((variant.name, "bits per word", -np.asarray(scores.logprob, dtype=np.float64) / math.log(2)))
    groups = groups_of(variants[0].items[task].item)
    means = resampled_means(np.stack([values for _, _, values in columns], axis=1), resamples, stream(seed, task), groups)
    found: dict[str, dict[str, Draws]] = {}
    for i, (name, what, values) in enumerate(columns):
        column = means[:, i]
        if what == "score" and (certain := float(values[0])) in (0.0, 1.0) and np.ptp(values) == 0:
            column = _jeffreys(certain, len(values), resamples, stream(seed, f"{task}/{name}"))
        found.setdefault(name, {})[what] = Draws(float(values.mean()), column, values, _flaw(values, what))
    for name, drawn in found.items():
        score = drawn.pop("score")
        bench[name, task] = Answers(drawn, score)


def _jeffreys(share: float, items: int, resamples: int, rng: np.random.Generator) -> Array:
    """Draws of a share from Jeffreys' posterior: none of n items right does not mean that no item ever would be."""
    return rng.beta(share * items + 0.5, (1 - share) * items + 0.5, size=resamples)


def _flaw(values: Array, what: str) -> str:
    if len(values) < MIN_ITEMS:
        return f"{len(values)} items are too few for an interval (at least {MIN_ITEMS})"
    if np.ptp(values) == 0 and not (what == "score" and values[0] in (0.0, 1.0)):
        return f"all {len(values)} items have the same value, so nothing tells how sure it is"
    return ""


def of_table(variant: str, task: str, score: float, resamples: int, seed: int) -> Answers:
    """Draws of a published score, as a share of its benchmark's items. Raises BadInput for what is no score."""
    if task not in BENCHMARKS:
        raise BadInput(f"{variant}: {task} is none of the benchmarks whose published scores can be read ({', '.join(BENCHMARKS)})")
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise BadInput(f"{variant}, {task}: {score} is no score; it must lie between 0 and 1")
    items, _ = BENCHMARKS[task]
    return Answers({}, Draws(score, _jeffreys(score, items, resamples, stream(seed, f"{task}/{variant}")), None, ""))
