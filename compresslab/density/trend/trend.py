"""The Densing Law on published scores: how fast the density of open base models grows.

ln(rho_max) = A t + B, t in days (Xiao et al., arXiv 2412.04315: A = 0.007, R2 = 0.93, doubling every 3.3 months). The paper fits a line to
the record setters, the models that were denser at their release than all before them. Such a line rises also where nothing grows. Beside
it stand two fits to all models, with intervals: quantile regression and a censored likelihood (`density.trend.fits`). A model needs a
release date and all five benchmarks in one table, in settings that the reference reads; they give its density as they do on the page of a
study of published scores. If several tables have it, the one with the median density is used.

The interval of the record setters' line is a bootstrap over models: each draw takes models with replacement, takes one draw of the density
of each (score errors, the reference's fit and its scatter), finds the frontier again and fits the line to it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from compresslab.catalog.published_scores import BENCHMARKS
from compresslab.catalog.published_settings import TASKS
from compresslab.density.draws import random_stream
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.trend.fits import (
    PLAIN,
    YEAR,
    History,
    Slopes,
    censored_fit,
    censored_slopes,
    frontier_fit,
    growth,
    quantile_line,
    quantile_slopes,
)
from compresslab.density.trend.models import DatedModel, dated_models, fit_draws, history, history_by_benchmark
from compresslab.errors import BadInput
from compresslab.records import Interval, Record

PAPER_GROWTH = 0.007
PAPER_R2 = 0.93
CHATGPT_RELEASE = datetime.date(2022, 11, 30)
DAYS_PER_MONTH = YEAR / 12

Fitted = Callable[[History], tuple[float, float | Array, *tuple[Array, ...]]]
"""The slope per day of a history, the height of the line in its middle (of each benchmark), and what else is fitted."""

FITS: tuple[tuple[str, bool, Slopes, Fitted], ...] = (
    ("quantile regression", False, quantile_slopes, quantile_line),
    ("censored likelihood", True, censored_slopes, censored_fit),
)
"""Kind; whether it takes each benchmark of a model as a reading, or their mean; slopes of weighted models; the fitted line."""


class TrendPoint(Record):
    """One model: its density, and whether it lies on the frontier.

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
        growth: A per day, with the 95% interval over models. It lies above 0 also where nothing grows.
        doubling_months: ln 2 / A in months; infinite if A may be 0.
        r2: of the line on the frontier models. models: number of models in the period. frontier: names of the frontier models.
    """

    growth: Interval
    doubling_months: Interval
    r2: float
    models: int
    frontier: list[str]


class TrendFit(Record):
    """A rate of growth from all models of a period.

    Attributes:
        kind: "quantile regression" or "censored likelihood". growth: A per day with its 95% interval.
        line: (ISO date, density) of both ends of the fitted line. models, bounds, releases: how many it rests on.
    """

    kind: str
    growth: Interval
    doubling_months: Interval
    line: list[tuple[str, float]]
    models: int
    bounds: int
    releases: int


class Trend(Record):
    """The trend over all models, and before and after the release of ChatGPT if each period has enough models.

    Attributes:
        fits: over all models. before_fits, after_fits: of the two periods; empty if there are too few models.
    """

    reference: str
    benchmarks: list[str]
    points: list[TrendPoint]
    whole: TrendLine
    before: TrendLine | None
    after: TrendLine | None
    fits: list[TrendFit]
    before_fits: list[TrendFit]
    after_fits: list[TrendFit]
    notes: list[str]


def trend(
    reference_name: str = "qwen2.5",
    resamples: int = 2000,
    seed: int = 0,
    benchmarks: Sequence[str] = tuple(BENCHMARKS),
) -> Trend:
    """Compute the trend on one reference.

    Args:
        benchmarks: all of them must stand in one table, and no other is read. ("MMLU",) reads far more models, some of them from
            before ChatGPT.

    Raises:
        BadInput: a reference without the benchmarks, or too few dated models.
    """
    reference = Reference.load(reference_name)
    known = {TASKS[task].benchmark for task in reference.tasks if task in TASKS}
    if lacking := [benchmark for benchmark in benchmarks if benchmark not in known]:
        raise BadInput(f"the reference {reference.name} lacks {', '.join(lacking)}; the trend needs {', '.join(benchmarks)}")
    dated = dated_models(reference, resamples, seed, benchmarks)
    usable = [model for model in dated if not model.estimate.bound]
    whole = _line(usable, resamples, seed)
    if whole is None:
        raise BadInput(f"{len(usable)} dated models with {', '.join(benchmarks)} are too few for a trend on {reference.name}")
    before, after = ([model for model in dated if (model.released < CHATGPT_RELEASE) == early] for early in (True, False))
    before_line, after_line = (
        _line([model for model in period if not model.estimate.bound], resamples, seed) for period in (before, after)
    )
    fits = _fits(dated)
    return Trend(
        reference=reference.name,
        benchmarks=list(benchmarks),
        points=[_point(model, whole) for model in sorted(dated, key=lambda model: (model.released, model.model))],
        whole=whole,
        before=before_line,
        after=after_line,
        fits=fits,
        before_fits=_fits(before),
        after_fits=_fits(after) if before else fits,
        notes=list(_notes(reference, dated, usable, whole, before, before_line)),
    )


def _point(model: DatedModel, line: TrendLine) -> TrendPoint:
    return TrendPoint(
        model=model.model,
        released=model.released,
        params=model.params,
        density=model.estimate.interval(),
        table=model.table,
        frontier=model.model in line.frontier,
    )


def _notes(
    reference: Reference,
    dated: Sequence[DatedModel],
    usable: Sequence[DatedModel],
    whole: TrendLine,
    before: Sequence[DatedModel],
    before_line: TrendLine | None,
) -> Iterable[str]:
    if bounds := len(dated) - len(usable):
        beyond = f"{bounds} of {len(dated)} models lie beyond what {reference.name} is read at"
        yield f"{beyond}; only a bound is known of them, and they do not enter the record setters' line"
    if extrapolated := [model.model for model in usable if model.model in whole.frontier and model.estimate.extrapolated]:
        yield f"extrapolated on the frontier: {', '.join(extrapolated)}"
    if before_line is None:
        plain = sum(not model.estimate.bound for model in before)
        yield (
            f"{len(before)} dated models with these benchmarks came out before ChatGPT ({CHATGPT_RELEASE}), {plain} of them more than a "
            "bound: too few for a line, so the growth before it cannot be told from these tables"
        )


def _line(usable: Sequence[DatedModel], resamples: int, seed: int) -> TrendLine | None:
    if not usable:
        return None
    days = np.array([float(model.released.toordinal()) for model in usable])
    logs = np.array([model.estimate.point for model in usable])
    result = frontier_fit(days, logs)
    if result is None:
        return None
    slope, r2, frontier_indices = result
    rng = random_stream(seed, "models")
    # A draw is infinite if its resampled fit cannot reach the model; the point estimate replaces it.
    drawn = np.stack([_finite(model.estimate.lower, model.estimate.point) for model in usable])
    slopes = []
    for i in range(resamples):
        pick = rng.integers(len(usable), size=len(usable))
        if (refit := frontier_fit(days[pick], drawn[pick, i])) is not None:
            slopes.append(refit[0])
    low, high = np.quantile(slopes, [0.025, 0.975])
    found = Interval(value=slope, low=min(float(low), slope), high=max(float(high), slope))
    return TrendLine(
        growth=found,
        doubling_months=doubling_months(found),
        r2=r2,
        models=len(usable),
        frontier=[usable[i].model for i in frontier_indices],
    )


def _finite(draws: Array, point: float) -> Array:
    return np.where(np.isfinite(draws), draws, point)


def doubling_months(growth_per_day: Interval) -> Interval:
    """ln 2 / A in months. An end at which A is 0 or below gives infinity."""
    ends = (growth_per_day.value, growth_per_day.high, growth_per_day.low)
    value, low, high = (math.log(2) / end / DAYS_PER_MONTH if end > 0 else math.inf for end in ends)
    return Interval(value=value, low=low, high=high)


def _fits(models: Sequence[DatedModel]) -> list[TrendFit]:
    """Both fits to all models of a period; those without an interval are left out."""
    if not models:
        return []
    found = []
    for kind, by_benchmark, slopes, fitted in FITS:
        known = (history_by_benchmark if by_benchmark else history)(models)
        interval = growth(known, slopes, _shared_error(known, fit_draws(models, by_benchmark=by_benchmark), fitted))
        if interval is None:
            continue
        height, middle = float(np.mean(fitted(known)[1])), float(known.days.mean())
        ends = (int(known.days.min()), int(known.days.max()))
        line = [(datetime.date.fromordinal(day).isoformat(), math.exp(height + interval.value * (day - middle))) for day in ends]
        found.append(
            TrendFit(
                kind=kind,
                growth=interval,
                doubling_months=doubling_months(interval),
                line=line,
                models=len(models),
                bounds=sum(bool(model.estimate.bound) for model in models),
                releases=len(np.unique(known.releases)),
            )
        )
    return found


def _shared_error(known: History, draws: Array, fitted: Fitted) -> float:
    """Standard deviation of the slope over the reference's resampled fits, which all models share. A bound stays where it is.

    Args:
        draws: (readings, fits) ln density by each fit.
    """
    # A fit that cannot reach a model says nothing about it.
    fixed = (known.sides != PLAIN)[:, None] | ~np.isfinite(draws)
    draws = np.where(fixed, known.logs[:, None], draws)
    return float(np.std([fitted(replace(known, logs=logs))[0] for logs in draws.T]))
