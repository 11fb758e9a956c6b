"""The Densing Law on published scores: how fast the highest density of open base models grows.

ln(rho_max) = A t + B, t in days (Xiao et al., arXiv 2412.04315: A = 0.007, R2 = 0.93, doubling every 3.3 months). rho_max is the running
maximum: the models that were denser than all before them when they came out. A model needs a release date and all five
benchmarks in one table; where it stands in several, the table with the median density counts (of two the lower).

The interval of A is a bootstrap over models: each draw takes models with replacement, reads each at one draw of its density (score
errors, the reference's fit and its scatter), finds the frontier anew and fits the line to it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compresslab.catalog.published_scores import BENCHMARKS, Score, scores, weights
from compresslab.catalog.published_shapes import dimensions
from compresslab.density.capability import Ruler, combine, measure_task
from compresslab.density.draws import of_table, stream
from compresslab.density.intervals import LogEstimate
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.errors import BadInput
from compresslab.records import Interval, Record

PAPER_GROWTH = 0.007
PAPER_R2 = 0.93
CHATGPT = datetime.date(2022, 11, 30)
MONTH = 365.25 / 12
FEWEST = 3
"""Fewer frontier models give no line worth the name."""

PRICES = (
    ("GPT-3.5", datetime.date(2022, 12, 1), 20.0),
    ("Gemini-1.5-Flash", datetime.date(2024, 8, 1), 0.075),
)
"""Dollars a million tokens for a model of GPT-3.5's level, as the Densing paper reports them; months, the day taken as the first."""


class TrendPoint(Record):
    """One model: its density over the five benchmarks, and whether it set a record.

    `params`: all but a pure input embedding where the model's dimensions are known, else its published total.
    """

    model: str
    released: datetime.date
    params: float
    density: Interval
    table: str
    frontier: bool


class Line(Record):
    """ln(rho_max) = A t + B over the frontier models of a time.

    Attributes:
        growth: A per day, with the 95% interval over models. doubling_months: ln 2 / A in months; infinite where A may be 0.
        r2: of the line on the frontier models. models: how many there were to choose from. frontier: those that set records.
    """

    growth: Interval
    doubling_months: Interval
    r2: float
    models: int
    frontier: list[str]


class Trend(Record):
    """The trend over all models, and before and after ChatGPT where there are models enough.

    `price_halving_days`: of a model of GPT-3.5's level, from the two prices that the Densing paper gives. Its effective parameters
    being the same at both, this is the cost of an effective parameter as well.
    """

    reference: str
    points: list[TrendPoint]
    whole: Line
    before: Line | None
    after: Line | None
    price_halving_days: float
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _Read:
    """A model with the draws of its ln density."""

    model: str
    released: datetime.date
    params: float
    table: str
    estimate: LogEstimate


def trend(reference_name: str = "qwen2.5", tokens: float = 1e12, resamples: int = 2000, seed: int = 0) -> Trend:
    """Compute the trend on one reference.

    Raises:
        BadInput: a reference without the five benchmarks, or too few dated models.
    """
    reference = Reference.load(reference_name)
    if lacking := [benchmark for benchmark in BENCHMARKS if benchmark not in reference.tasks]:
        raise BadInput(f"the reference {reference.name} lacks {', '.join(lacking)}; the trend needs all five benchmarks")
    every = _read(reference, tokens, resamples, seed)
    read = [one for one in every if not one.estimate.bound]
    whole = _line(read, resamples, seed)
    if whole is None:
        raise BadInput(f"{len(read)} dated models with all five benchmarks are too few for a trend on {reference.name}")
    early, late = ([one for one in read if (one.released < CHATGPT) == before] for before in (True, False))
    before, after = _line(early, resamples, seed), _line(late, resamples, seed)
    notes = []
    if bounds := len(every) - len(read):
        beyond = f"{bounds} of {len(every)} models lie beyond what {reference.name} is read at"
        notes.append(f"{beyond}; only a bound is known of them, and they do not enter")
    if extrapolated := [one.model for one in read if one.model in whole.frontier and one.estimate.extrapolated]:
        notes.append(f"extrapolated on the frontier: {', '.join(extrapolated)}")
    if before is None:
        notes.append(
            f"{len(early)} dated models with all five benchmarks came out before ChatGPT ({CHATGPT}), too few for a line: "
            "the growth before it cannot be told from these tables"
        )
    (_, first, dear), (_, last, cheap) = PRICES
    return Trend(
        reference=reference.name,
        points=[
            TrendPoint(
                model=one.model,
                released=one.released,
                params=one.params,
                density=one.estimate.interval(),
                table=one.table,
                frontier=one.model in whole.frontier,
            )
            for one in sorted(every, key=lambda one: (one.released, one.model))
        ],
        whole=whole,
        before=before,
        after=after,
        price_halving_days=(last - first).days / math.log2(dear / cheap),
        notes=notes,
    )


def _read(reference: Reference, tokens: float, resamples: int, seed: int) -> list[_Read]:
    """Every dated base model with all five benchmarks in one table."""
    by_model: dict[str, dict[str, dict[str, Score]]] = {}
    for score in scores():
        if score.kind == "base" and score.released and score.compression in ("none", "distill", "prune+distill"):
            by_model.setdefault(score.model, {}).setdefault(score.table, {})[score.benchmark] = score
    rows = stream(seed, "reference").integers(reference.resamples, size=resamples) + 1
    found = []
    for model, tables in by_model.items():
        readings = []
        for table, of in tables.items():
            if set(of) != set(BENCHMARKS):
                continue
            ruler = Ruler(reference, tokens, rows, stream(seed, f"scatter/{model}").random(resamples))
            answers = {task: of_table(model, task, score.score, resamples, seed) for task, score in of.items()}
            parts = {task: measure_task(ruler, task, answer).placed_by_score for task, answer in answers.items()}
            estimate = combine(parts, published=True)
            if estimate is not None:
                first = next(iter(of.values()))
                params = float(weights(model)[0].counted) if model in dimensions() else first.params
                readings.append(_Read(model, datetime.date.fromisoformat(first.released), params, table, estimate.over(params)))
        if readings:
            readings.sort(key=lambda one: one.estimate.point)
            found.append(readings[(len(readings) - 1) // 2])
    return found


def frontier(days: Array, logs: Array) -> list[int]:
    """Indices of the models that were denser than all before them, in order of their dates; of one day only the densest."""
    best, kept = -math.inf, []
    for i in sorted(range(len(days)), key=lambda i: (days[i], -logs[i])):
        if logs[i] > best:
            best = float(logs[i])
            kept.append(i)
    return kept


def _fit(days: Array, logs: Array) -> tuple[float, float, list[int]] | None:
    """A, R2 and the frontier; `None` with too few models on it."""
    kept = frontier(days, logs)
    if len(kept) < FEWEST:
        return None
    x, y = days[kept], logs[kept]
    slope, intercept = np.polyfit(x - x.mean(), y, 1)
    left = y - (slope * (x - x.mean()) + intercept)
    return float(slope), float(1 - np.sum(left**2) / np.sum((y - y.mean()) ** 2)), kept


def _line(read: Sequence[_Read], resamples: int, seed: int) -> Line | None:
    if len(read) < FEWEST:
        return None
    days = np.array([float(one.released.toordinal()) for one in read])
    logs = np.array([one.estimate.point for one in read])
    found = _fit(days, logs)
    if found is None:
        return None
    slope, r2, kept = found
    rng = stream(seed, "models")
    # A resampled fit may put a model beyond all sizes; its point stands in for such a draw.
    drawn = np.stack([np.where(np.isfinite(one.estimate.lower), one.estimate.lower, one.estimate.point) for one in read])
    slopes = []
    for i in range(resamples):
        pick = rng.integers(len(read), size=len(read))
        if (again := _fit(days[pick], drawn[pick, i])) is not None:
            slopes.append(again[0])
    low, high = np.quantile(slopes, [0.025, 0.975])
    growth = Interval(value=slope, low=min(float(low), slope), high=max(float(high), slope))
    ends = [math.log(2) / end / MONTH if end > 0 else math.inf for end in (growth.value, growth.high, growth.low)]
    return Line(
        growth=growth,
        doubling_months=Interval(value=ends[0], low=ends[1], high=ends[2]),
        r2=r2,
        models=len(read),
        frontier=[read[i].model for i in kept],
    )
