"""What follows from a rate of growth: density times the price of chips, when a model was passed on, and how fast prices fall.

- *Density and chips.* If density doubles every ln 2 / A days and the operations per dollar of a chip every M days, then the effective
  parameters that a dollar of chip runs double every ln 2 / (A + ln 2 / M) days.
- *Passed on.* A model is passed on when a later model with fewer parameters reaches its MMLU score. Models that no smaller one has reached
  are censored at the newest release: the median is that of the Kaplan-Meier estimate.
- *Prices.* If the price of one level of capability falls from p to q in d days, it halves every d ln 2 / ln(p / q) days.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import CensoredData, ecdf

from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.trend.fits import YEAR
from compresslab.density.trend.models import DatedModel, dated_models
from compresslab.density.trend.trend import PAPER_GROWTH, Trend
from compresslab.errors import BadInput
from compresslab.records import Interval, Record

MOORE_DAYS = 2.1 * YEAR
MOORE_SOURCE = "Densing Law, arXiv 2412.04315: price-performance of chips doubles every 2.1 years; its result is 88 days"
PRICES = (
    ("GPT-3.5", datetime.date(2022, 12, 1), 20.0),
    ("Gemini-1.5-Flash", datetime.date(2024, 8, 1), 0.075),
)
"""Model, date (the first of the month) and dollars per million tokens at GPT-3.5's level."""
PRICES_SOURCE = "Densing Law, arXiv 2412.04315: dollars per million tokens of models at GPT-3.5's level, December 2022 and August 2024"
PASSED_SOURCE = "5-shot MMLU of dated base models (data/published_scores.csv and data/early_models.csv, each row with its source)"


class EffectiveDoubling(Record):
    """Days in which the effective parameters per dollar of chip double, for one rate of growth per day."""

    rate: str
    growth: Interval
    days: Interval


class PassedOn(Record):
    """When a smaller model first reached a model's MMLU score; `by` is empty if none has. Scores are shares, `days` since its release."""

    model: str
    released: datetime.date
    params: float
    mmlu: float
    by: str = ""
    on: datetime.date | None = None
    by_params: float | None = None
    by_mmlu: float | None = None
    days: int | None = None


class Corollaries(Record):
    """The three corollaries, each with its source.

    Attributes:
        median_days: Kaplan-Meier median of the days until a model is passed on, with its 95% interval; infinite if fewer than half are.
        median_days_half: the same until a model with at most half the parameters reaches the score.
        price_halving_days: at one level of capability. The effective parameters are then the same, so it is also the time in which the
            price of an effective parameter halves.
    """

    reference: str
    doublings: list[EffectiveDoubling]
    doublings_source: str = MOORE_SOURCE
    passed: list[PassedOn]
    median_days: Interval
    median_days_half: Interval
    passed_source: str = PASSED_SOURCE
    price_halving_days: float
    price_source: str = PRICES_SOURCE


def corollaries(found: Trend) -> Corollaries:
    """What follows from a trend. Raises BadInput if its reference does not read MMLU, or if there are no dated models."""
    paper = Interval(value=PAPER_GROWTH, low=PAPER_GROWTH, high=PAPER_GROWTH)
    rates = [("Densing Law paper", paper), *((fit.kind, fit.growth) for fit in found.fits)]
    reference = Reference.load(found.reference)
    if "MMLU" not in reference.tasks:
        raise BadInput(f"the reference {reference.name} lacks MMLU; the dates on which models were passed on need it")
    models = dated_models(reference, 10, 0, ("MMLU",))
    passed = passed_on(models)
    (_, first, first_price), (_, last, last_price) = PRICES
    return Corollaries(
        reference=found.reference,
        doublings=[EffectiveDoubling(rate=name, growth=rate, days=effective_doubling(rate)) for name, rate in rates],
        passed=passed,
        median_days=median_days(passed),
        median_days_half=median_days(passed_on(models, share=0.5)),
        price_halving_days=halving_days(first_price, last_price, (last - first).days),
    )


def effective_doubling(growth_per_day: Interval) -> Interval:
    """Days in which effective parameters per dollar double. An end at which they do not grow gives infinity."""
    rates = [end + math.log(2) / MOORE_DAYS for end in (growth_per_day.value, growth_per_day.high, growth_per_day.low)]
    value, low, high = (math.log(2) / rate if rate > 0 else math.inf for rate in rates)
    return Interval(value=value, low=low, high=high)


def halving_days(first_price: float, last_price: float, days: int) -> float:
    """Days in which a price halves that falls from the first to the last within `days`."""
    return days * math.log(2) / math.log(first_price / last_price)


def passed_on(models: Sequence[DatedModel], share: float = 1.0) -> list[PassedOn]:
    """Each model, by date, with the first later one that has at least its MMLU score and fewer parameters.

    Args:
        share: the later model has at most this share of the parameters, and fewer in any case.
    """
    ordered = sorted(models, key=lambda model: (model.released, model.params, model.model))
    found = []
    for model in ordered:
        entry = PassedOn(model=model.model, released=model.released, params=model.params, mmlu=model.mmlu)
        later = (
            other
            for other in ordered
            if other.released > model.released
            and other.params <= share * model.params
            and other.params < model.params
            and other.mmlu >= model.mmlu
        )
        if (first := next(later, None)) is not None:
            by = {"by": first.model, "on": first.released, "by_params": first.params, "by_mmlu": first.mmlu}
            entry = entry.model_copy(update={**by, "days": (first.released - model.released).days})
        found.append(entry)
    return found


def median_days(passed: Sequence[PassedOn]) -> Interval:
    """Kaplan-Meier median of the days until a model is passed on. Raises BadInput without a model that was."""
    if not any(entry.days for entry in passed):
        raise BadInput("no dated model was reached by a smaller one")
    newest = max(entry.released for entry in passed)
    # Models of the newest date have not been observed for a day.
    observed = [entry for entry in passed if entry.released < newest]
    known = [entry.days for entry in observed if entry.days is not None]
    unknown = [(newest - entry.released).days for entry in observed if entry.days is None]
    curve = ecdf(CensoredData(uncensored=known, right=unknown)).cdf
    with np.errstate(divide="ignore", invalid="ignore"):
        band: Any = curve.confidence_interval(0.95, method="log-log")

    def crossing(shares: Array) -> float:
        reached = np.nonzero(np.nan_to_num(shares) >= 0.5)[0]
        return float(curve.quantiles[reached[0]]) if len(reached) else math.inf

    low, high = crossing(band.high.probabilities), crossing(band.low.probabilities)
    return Interval(value=crossing(curve.probabilities), low=low, high=high)
