"""The Densing Law on published scores: how fast the highest density of open base models grows.

ln(rho_max) = A t + B, t in days (Xiao et al., arXiv 2412.04315: A = 0.007, R2 = 0.93, doubling every 3.3 months). rho_max is the running
maximum: the models that were denser at their release than all before them. A model needs a release date and all five
benchmarks in one table. If several tables have it, the one with the median density is used (of two the lower).

The interval of A is a bootstrap over models: each draw takes models with replacement, takes one draw of the density of each (score
errors, the reference's fit and its scatter), finds the frontier again and fits the line to it.
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
from compresslab.density.draws import draw_published_score, random_stream
from compresslab.density.intervals import LogEstimate
from compresslab.density.references.budget import Budget
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.errors import BadInput
from compresslab.records import Interval, Record

PAPER_GROWTH = 0.007
PAPER_R2 = 0.93
CHATGPT_RELEASE = datetime.date(2022, 11, 30)
DAYS_PER_MONTH = 365.25 / 12
MIN_MODELS = 3
"""With fewer frontier models no line is fitted."""

PRICES = (
    ("GPT-3.5", datetime.date(2022, 12, 1), 20.0),
    ("Gemini-1.5-Flash", datetime.date(2024, 8, 1), 0.075),
)
"""Model, date (the first of the month) and dollars per million tokens at GPT-3.5's level, as the Densing paper reports them."""


class TrendPoint(Record):
    """One model: its density over the five benchmarks, and whether it lies on the frontier.

    `params`: all but a pure input embedding if the model's dimensions are known, else its published total.
    """

    model: str
    released: datetime.date
    params: float
    density: Interval
    table: str
    frontier: bool


class TrendLine(Record):
    """ln(rho_max) = A t + B over the frontier models of a period.

    Attributes:
        growth: A per day, with the 95% interval over models. doubling_months: ln 2 / A in months; infinite if A may be 0.
        r2: of the line on the frontier models. models: number of models in the period. frontier: names of the frontier models.
    """

    growth: Interval
    doubling_months: Interval
    r2: float
    models: int
    frontier: list[str]


class Trend(Record):
    """The trend over all models, and before and after the release of ChatGPT if each period has enough models.

    `price_halving_days`: days in which the price of GPT-3.5's level halves, from the two prices in the Densing paper. Effective
    parameters are the same at both, so it is also the time in which the price of an effective parameter halves.
    """

    reference: str
    points: list[TrendPoint]
    whole: TrendLine
    before: TrendLine | None
    after: TrendLine | None
    price_halving_days: float
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _DatedModel:
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
    dated = _dated_models(reference, tokens, resamples, seed)
    usable = [model for model in dated if not model.estimate.bound]
    whole = _line(usable, resamples, seed)
    if whole is None:
        raise BadInput(f"{len(usable)} dated models with all five benchmarks are too few for a trend on {reference.name}")
    before_chatgpt, after_chatgpt = (
        [model for model in usable if (model.released < CHATGPT_RELEASE) == before] for before in (True, False)
    )
    before, after = _line(before_chatgpt, resamples, seed), _line(after_chatgpt, resamples, seed)
    notes = []
    if bounds := len(dated) - len(usable):
        beyond = f"{bounds} of {len(dated)} models lie beyond what {reference.name} is read at"
        notes.append(f"{beyond}; only a bound is known of them, and they do not enter")
    if extrapolated := [model.model for model in usable if model.model in whole.frontier and model.estimate.extrapolated]:
        notes.append(f"extrapolated on the frontier: {', '.join(extrapolated)}")
    if before is None:
        notes.append(
            f"{len(before_chatgpt)} dated models with all five benchmarks came out before ChatGPT ({CHATGPT_RELEASE}), too few for a line: "
            "the growth before it cannot be told from these tables"
        )
    (_, first, first_price), (_, last, last_price) = PRICES
    return Trend(
        reference=reference.name,
        points=[
            TrendPoint(
                model=model.model,
                released=model.released,
                params=model.params,
                density=model.estimate.interval(),
                table=model.table,
                frontier=model.model in whole.frontier,
            )
            for model in sorted(dated, key=lambda model: (model.released, model.model))
        ],
        whole=whole,
        before=before,
        after=after,
        price_halving_days=(last - first).days / math.log2(first_price / last_price),
        notes=notes,
    )


def _dated_models(reference: Reference, tokens: float, resamples: int, seed: int) -> list[_DatedModel]:
    """Every dated base model with all five benchmarks in one table."""
    by_model: dict[str, dict[str, dict[str, Score]]] = {}
    for score in scores():
        if score.kind == "base" and score.released and score.compression in ("none", "distill", "prune+distill"):
            by_model.setdefault(score.model, {}).setdefault(score.table, {})[score.benchmark] = score
    rows = random_stream(seed, "reference").integers(reference.resamples, size=resamples) + 1
    result = []
    for model, tables in by_model.items():
        readings = []
        for table, by_benchmark in tables.items():
            if set(by_benchmark) != set(BENCHMARKS):
                continue
            ruler = Ruler(reference, Budget(tokens=tokens), rows, (random_stream(seed, f"scatter/{model}").random(resamples),))
            answers = {task: draw_published_score(model, task, score.score, resamples, seed) for task, score in by_benchmark.items()}
            parts = {task: measure_task(ruler, task, answer).by_score_with_scatter for task, answer in answers.items()}
            estimate = combine(parts, published=True)
            if estimate is not None:
                first = next(iter(by_benchmark.values()))
                params = float(weights(model)[0].counted) if model in dimensions() else first.params
                readings.append(_DatedModel(model, datetime.date.fromisoformat(first.released), params, table, estimate.over(params)))
        if readings:
            readings.sort(key=lambda model: model.estimate.point)
            result.append(readings[(len(readings) - 1) // 2])
    return result


def frontier(days: Array, logs: Array) -> list[int]:
    """Indices of the models that were denser than all before them, by date; only the densest of one day."""
    best, frontier_indices = -math.inf, []
    for i in sorted(range(len(days)), key=lambda i: (days[i], -logs[i])):
        if logs[i] > best:
            best = float(logs[i])
            frontier_indices.append(i)
    return frontier_indices


def _fit(days: Array, logs: Array) -> tuple[float, float, list[int]] | None:
    """A, R2 and the frontier; `None` if the frontier has fewer than `MIN_MODELS` models."""
    frontier_indices = frontier(days, logs)
    if len(frontier_indices) < MIN_MODELS:
        return None
    x, y = days[frontier_indices], logs[frontier_indices]
    slope, intercept = np.polyfit(x - x.mean(), y, 1)
    residual = y - (slope * (x - x.mean()) + intercept)
    return float(slope), float(1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)), frontier_indices


def _line(usable: Sequence[_DatedModel], resamples: int, seed: int) -> TrendLine | None:
    if len(usable) < MIN_MODELS:
        return None
    days = np.array([float(model.released.toordinal()) for model in usable])
    logs = np.array([model.estimate.point for model in usable])
    result = _fit(days, logs)
    if result is None:
        return None
    slope, r2, frontier_indices = result
    rng = random_stream(seed, "models")
    # A draw is infinite if its resampled fit cannot reach the model; the point estimate replaces it.
    drawn = np.stack([np.where(np.isfinite(model.estimate.lower), model.estimate.lower, model.estimate.point) for model in usable])
    slopes = []
    for i in range(resamples):
        pick = rng.integers(len(usable), size=len(usable))
        if (refit := _fit(days[pick], drawn[pick, i])) is not None:
            slopes.append(refit[0])
    low, high = np.quantile(slopes, [0.025, 0.975])
    growth = Interval(value=slope, low=min(float(low), slope), high=max(float(high), slope))
    ends = [math.log(2) / end / DAYS_PER_MONTH if end > 0 else math.inf for end in (growth.value, growth.high, growth.low)]
    return TrendLine(
        growth=growth,
        doubling_months=Interval(value=ends[0], low=ends[1], high=ends[2]),
        r2=r2,
        models=len(usable),
        frontier=[usable[i].model for i in frontier_indices],
    )
