"""Resampled means of every variant's results, with draws that all variants share.

Items are drawn with replacement, with the same draws for every variant that answered them, so that what child and parent have in common
(hard items) cancels in their ratio. If a benchmark consists of many groups (subjects), whole groups are drawn. Random streams depend
only on the seed and the task: adding a variant to a study changes no figure of the others. A published score has no items. Its draws
are those of a share of its benchmark's items, independent for parent and child, which gives a wider interval than paired items would.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compresslab.catalog.published_settings import TASKS, other_settings
from compresslab.density import student
from compresslab.density.references.laws import Array, share_logit
from compresslab.errors import BadInput
from compresslab.records import ItemScores, Record, Shape, Size, Timing

MIN_ITEMS = 10
"""Fewer items give no estimate, because a bootstrap of so few values understates their spread."""

MIN_GROUPS = 10
"""With fewer groups, items are drawn instead, because a bootstrap of so few groups understates their spread."""

CRITICAL = 0.975
"""Probability of the upper end of a 95% interval."""

CHUNK = 4_000_000
"""Maximum number of values in one block of resampling weights (32 MB)."""

LOSSES = {"bits per byte": "bits_per_byte", "bits per word": "logprob"}
"""Unit of a reference's loss -> the column of per-item results that it is computed from."""


class Anchor(Record):
    """What a score of one table becomes in another, in logits of the share above a guess, learned from the models that both tables have.

    Attributes:
        shift: to add. error: standard deviation of the shift of one more model; `degrees` of freedom of that estimate.
        tables: both tables, which name the random stream: models of one table share the draws of the shift.
    """

    shift: float
    error: float
    degrees: int
    tables: str


class Measured(Record):
    """Size, shape and results of one variant. `parent` is "" for the root.

    Attributes:
        items: per-item results by task. published: scores in [0, 1] by `published_settings` task, for a model that was not run here.
        published_items: by task, the items behind a published score where they are not those of its benchmark in `published_settings`.
        table: the table of the published scores. anchors: by task, if the scores are read as scores of another table.
        joined: in words, why scores of this table compare with those of another.
        runs: the training runs behind its weights, each by the name of the first variant that has it. Two variants without any in common
            were trained separately. A pruned or quantized copy has its parent's; a step that trains adds one. Empty for a run of its own.
        timing: the time of this variant and its parent, measured on this machine with the study's workload.
        replicates: for each replicated step behind its weights, the models that differ in the seeds of that step alone, by the name of
            the step. They are this model and its replicates, or those of the nearest model before it that has some.
        replicate: it is a further replicate of another model. It has a density, and no comparison of its own.
    """

    name: str
    parent: str = ""
    root: str
    size: Size
    shape: Shape
    items: dict[str, ItemScores] = Field(default_factory=dict)
    published: dict[str, float] = Field(default_factory=dict)
    published_items: dict[str, int] = Field(default_factory=dict)
    table: str = ""
    anchors: dict[str, Anchor] = Field(default_factory=dict)
    joined: str = ""
    runs: list[str] = Field(default_factory=list)
    timing: Timing | None = None
    replicates: dict[str, list[str]] = Field(default_factory=dict)
    replicate: bool = False

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks with results, in order."""
        return [*self.items, *self.published]

    def runs_apart(self, other: Measured) -> list[str]:
        """The training runs behind this variant and not behind the other."""
        behind_other = other.runs or [other.name]
        return [run for run in self.runs or [self.name] if run not in behind_other]

    def replicates_apart(self, other: Measured) -> dict[str, list[str]]:
        """The replicated steps behind this variant and not behind the other, each with its replicates."""
        return {step: names for step, names in self.replicates.items() if step not in other.replicates}

    def count(self, task: str) -> int:
        """Number of items of a task that it answered."""
        return len(self.items[task].item) if task in self.items else self.published_items.get(task) or TASKS[task].items


@dataclass(frozen=True, eq=False)
class Draws:
    """One quantity of one variant on one task: its mean, (resamples,) means over resampled items, per-item values if there are any, and
    the reason why it has no interval, or ""."""

    mean: float
    means: Array
    values: Array | None
    no_interval_reason: str


@dataclass(frozen=True, eq=False)
class TaskDraws:
    """Results of one variant on one task: the losses by unit, and the score."""

    losses: dict[str, Draws]
    score: Draws


StudyDraws = dict[tuple[str, str], TaskDraws]
"""By (variant, task)."""


def check(variant: str, task: str, scores: ItemScores) -> None:
    """Check per-item results. Raises BadInput for invalid ones; the message names variant, task and item."""
    where, items = f"{variant}, {task}", scores.item
    if not items:
        raise BadInput(f"{where}: no items")
    if len(set(items)) != len(items):
        duplicate = next(item for item in items if items.count(item) > 1)
        raise BadInput(f"{where}: item {duplicate} stands there twice")
    if scores.prompt_hash is not None and len(scores.prompt_hash) != len(items):
        raise BadInput(f"{where}: {len(items)} items, but {len(scores.prompt_hash)} hashes of prompts")
    columns = {"correct": (scores.correct, 0.0, 1.0)}
    if scores.bits_per_byte is not None:
        columns["bits_per_byte"] = (scores.bits_per_byte, 0.0, np.inf)
    if scores.logprob is not None:
        columns["logprob"] = (scores.logprob, -np.inf, 0.0)
    for name, (column, minimum, maximum) in columns.items():
        values = np.asarray(column, dtype=np.float64)
        if len(values) != len(items):
            raise BadInput(f"{where}: {len(items)} items, but {len(values)} values of {name}")
        bad = ~(np.isfinite(values) & (values >= minimum) & (values <= maximum))
        if bad.any():
            first = int(np.argmax(bad))
            allowed = {"correct": "between 0 and 1", "logprob": "finite and not positive"}.get(name, "finite and not negative")
            raise BadInput(f"{where}: {name} of item {items[first]} is {values[first]}; it must be {allowed}")


def random_stream(seed: int, name: str) -> np.random.Generator:
    """A random stream that depends only on the seed and its purpose, and not on the variants that are compared."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def groups_of(items: Sequence[str]) -> NDArray[np.int64] | None:
    """(items,) the group number of each item if a benchmark has at least `MIN_GROUPS` groups (MMLU has 57 subjects), else `None`.

    Items of one subject share their examples and their content, so their results are correlated and whole subjects are drawn.
    """
    names = [item.partition("/")[0] for item in items if "/" in item]
    if len(names) < len(items):
        return None
    _, numbers = np.unique(names, return_inverse=True)
    return numbers.astype(np.int64) if MIN_GROUPS <= len(set(names)) < len(items) else None


def resampled_means(columns: Array, resamples: int, rng: np.random.Generator, groups: NDArray[np.int64] | None = None) -> Array:
    """Means over items drawn with replacement: (items, k) columns to (resamples, k), the same draws for every column.

    Their deviations from the mean of all items are widened by what so many items, or groups, leave unknown.

    Args:
        groups: (items,) the group of each item. Whole groups are then drawn, and the mean is over the items of the drawn groups.
    """
    if groups is None:
        drawn, units = _drawn_means(columns, resamples, rng), len(columns)
    else:
        sizes = np.bincount(groups).astype(np.float64)
        sums = np.stack([np.bincount(groups, weights=column) for column in columns.T], axis=1)
        # Both means are over the same number of groups, which cancels in their ratio.
        both = _drawn_means(np.concatenate([sums, sizes[:, None]], axis=1), resamples, rng)
        drawn, units = both[:, :-1] / both[:, -1:], len(sizes)
    mean = columns.mean(axis=0)
    # A mean lies between the smallest and the largest value, also where few units are drawn.
    return np.asarray(np.clip(mean + _widening(units) * (drawn - mean), columns.min(axis=0), columns.max(axis=0)))


def _widening(units: int) -> float:
    """By how much draws of few units must be spread for their 95% interval to be Student's.

    The variance of a bootstrap of G units is (G - 1) / G of the unbiased one, and its tails are those of the normal distribution, not of
    Student's t with G - 1 degrees of freedom (Hesterberg 2015, section 4.1; for groups Cameron, Gelbach and Miller 2008). The factor is
    1.22 for 10 units, 1.10 for 20, 1.03 for MMLU's 57 subjects and 1.01 for 200 items.

    One factor makes the draws Student's at the ends of the 95% interval alone. Further out they stay normal, so p below 0.05 is too small:
    a p of 0.005 should be 0.009 with 12 groups, 0.007 with 20 and 0.006 with 57; one of 0.001 should be 0.0035, 0.0023 and 0.0014.
    """
    if units < 2:
        return 1.0
    critical = float(student.quantiles(np.array(CRITICAL), units - 1))
    return math.sqrt(units / (units - 1)) * critical / NormalDist().inv_cdf(CRITICAL)


def _drawn_means(columns: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Means over rows drawn with replacement, the same draws for every column."""
    n = len(columns)
    rows = max(1, CHUNK // n)
    blocks = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        blocks.append(weights @ columns / n)
    return np.concatenate(blocks)


def draw(variants: Sequence[Measured], resamples: int, seed: int) -> StudyDraws:
    """Resample every task, with the same draws for all variants that answered the same number of its items.

    Args:
        variants: their per-item results have passed `check`.

    Raises:
        BadInput: a published score that is none.
    """
    draws: StudyDraws = {}
    for variant in variants:
        for task, score in variant.published.items():
            drawn = draw_published_score(variant.name, task, score, resamples, seed, items=variant.published_items.get(task))
            draws[variant.name, task] = _moved(drawn, variant.anchors[task], task, seed) if task in variant.anchors else drawn
    for task in dict.fromkeys(task for variant in variants for task in variant.items):
        having_task = [variant for variant in variants if task in variant.items]
        for n in sorted({variant.count(task) for variant in having_task}):
            same_count = [variant for variant in having_task if variant.count(task) == n]
            _draw_items(draws, same_count, task, resamples, seed)
    return draws


def _draw_items(draws: StudyDraws, variants: Sequence[Measured], task: str, resamples: int, seed: int) -> None:
    columns: list[tuple[str, str, Array]] = []
    for variant in variants:
        scores = variant.items[task]
        columns.append((variant.name, "score", np.asarray(scores.correct, dtype=np.float64)))
        if scores.bits_per_byte is not None:
            columns.append((variant.name, "bits per byte", np.asarray(scores.bits_per_byte, dtype=np.float64)))
        if scores.logprob is not None:
            columns.append((variant.name, "bits per word", -np.asarray(scores.logprob, dtype=np.float64) / math.log(2)))
    groups = groups_of(variants[0].items[task].item)
    means = resampled_means(np.stack([values for _, _, values in columns], axis=1), resamples, random_stream(seed, task), groups)
    drawn_columns: dict[str, dict[str, Draws]] = {}
    for i, (name, kind, values) in enumerate(columns):
        drawn_means = means[:, i]
        if kind == "score" and (share := float(values[0])) in (0.0, 1.0) and np.ptp(values) == 0:
            drawn_means = _jeffreys(share, len(values), resamples, random_stream(seed, f"{task}/{name}"))
        drawn_columns.setdefault(name, {})[kind] = Draws(float(values.mean()), drawn_means, values, _no_interval_reason(values, kind))
    for name, drawn in drawn_columns.items():
        score = drawn.pop("score")
        draws[name, task] = TaskDraws(drawn, score)


def _jeffreys(share: float, items: int, resamples: int, rng: np.random.Generator) -> Array:
    """Draws of a share from Jeffreys' posterior, which has a spread even where 0 of n items are right."""
    return rng.beta(share * items + 0.5, (1 - share) * items + 0.5, size=resamples)


def _no_interval_reason(values: Array, kind: str) -> str:
    if len(values) < MIN_ITEMS:
        return f"{len(values)} items are too few for an interval (at least {MIN_ITEMS})"
    if np.ptp(values) == 0 and not (kind == "score" and values[0] in (0.0, 1.0)):
        return f"all {len(values)} items have the same value, so nothing tells how sure it is"
    return ""


def draw_published_score(variant: str, task: str, score: float, resamples: int, seed: int, *, items: int | None = None) -> TaskDraws:
    """Draws of a published score, as a share of its items.

    Args:
        items: their number. Default: that of its benchmark in `published_settings`.

    Raises:
        BadInput: no score, or a benchmark whose number of items nobody states.
    """
    if items is None and task not in TASKS:
        settings = other_settings(task, TASKS)
        hint = f"a benchmark in several settings; write {' or '.join(settings)}" if settings else f"none of {', '.join(TASKS)}"
        raise BadInput(f"{variant}: {task} is {hint}")
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise BadInput(f"{variant}, {task}: {score} is no score; it must lie between 0 and 1")
    count = items or TASKS[task].items
    return TaskDraws({}, Draws(score, _jeffreys(score, count, resamples, random_stream(seed, f"{task}/{variant}")), None, ""))


def _moved(answers: TaskDraws, anchor: Anchor, task: str, seed: int) -> TaskDraws:
    """A score of one table as one of another. The score's own error is kept, and that of the shift is added."""
    chance = TASKS[task].chance

    def moved(scores: Array, shift: Array) -> Array:
        above = scores > chance
        logit = share_logit(np.where(above, scores, 0.5 * (1 + chance)), chance) + shift
        return np.where(above, chance + (1 - chance) / (1 + np.exp(-logit)), scores)

    uniform = random_stream(seed, f"anchor/{anchor.tables}/{task}").random(len(answers.score.means))
    shifts = anchor.shift + anchor.error * student.quantiles(uniform, anchor.degrees)
    score = answers.score
    mean = float(moved(np.array(score.mean), np.array(anchor.shift)))
    return TaskDraws({}, replace(score, mean=mean, means=moved(score.means, shifts)))
