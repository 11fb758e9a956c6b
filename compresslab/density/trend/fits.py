"""Rates of growth of ln density with time, with intervals that take models of one release as one observation.

Three fits:

- `frontier_fit`: least squares through the record setters, as the Densing Law papers do it. Record setters rise by construction: the line
  has a positive slope also where nothing grows, and no interval of it can be right. It is kept for comparison.
- `quantile_slope`: the line below which 90% of the models lie (Koenker and Bassett 1978). It depends only on the side of the line on which
  a model lies, so a bound "<" below the line, or ">" above it, acts as the unknown value would.
- `censored_slope`: maximum likelihood of a normal distribution of ln density around a line. A plain model contributes its density, with its
  own error added to the spread; a model that is known only to lie below (above) a bound contributes the probability of that. It
  describes the middle of the models, and the frontier too if the spread does not change.

Their intervals: models of one release (a family on a day) share data and recipe, and so, to a degree, do the releases of one line of models
(Qwen, Llama). Each release is left out as a whole, and then each line (the delete-one-cluster jackknife, CV3 of MacKinnon, Nielsen and
Webb 2023). With few clusters such an error is at times far too small, so each model is left out by itself, too (Angrist and Pischke
2009, chapter 8, take the larger of the robust and the conventional error). The largest of the three counts, with the critical value of
Student's t for one degree of freedom less than lines. The error that all models share, that of the reference's fit, is added.
`experiments/trend/simulate.py` tests the intervals on histories whose growth is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.special import log_ndtr, stdtrit

from compresslab.density.references.laws import Array
from compresslab.records import Interval

QUANTILE = 0.9
MIN_MODELS = 3
"""With fewer frontier models no line is fitted."""

MIN_LINES = 5
"""With fewer lines of models the jackknife says too little about the error."""

YEAR = 365.25

BELOW, PLAIN, ABOVE = -1, 0, 1


@dataclass(frozen=True, eq=False)
class History:
    """Dated models, one entry each.

    Attributes:
        days: of the release. logs: ln density, or the bound of it. errors: standard deviation of ln density from the model's scores.
        sides: `BELOW` if the true value lies below `logs`, `ABOVE` if above, else `PLAIN`.
        releases, lines: number of the release, and of the line of models.
    """

    days: Array
    logs: Array
    errors: Array
    sides: NDArray[np.int64]
    releases: NDArray[np.int64]
    lines: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> History:
        """The models that are chosen."""
        return History(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def years(self) -> Array:
        """Years from the middle of the history; slopes are per year inside the fits, whose numbers are then near 1."""
        return np.asarray((self.days - self.days.mean()) / YEAR)


Slope = Callable[[History], float]
"""A rate of growth per day."""


def frontier(days: Array, logs: Array) -> list[int]:
    """Indices of the models that were denser than all before them, by date; only the densest of one day."""
    best, frontier_indices = -math.inf, []
    for i in sorted(range(len(days)), key=lambda i: (days[i], -logs[i])):
        if logs[i] > best:
            best = float(logs[i])
            frontier_indices.append(i)
    return frontier_indices


def frontier_fit(days: Array, logs: Array) -> tuple[float, float, list[int]] | None:
    """A, R2 and the frontier; `None` if the frontier has fewer than `MIN_MODELS` models."""
    frontier_indices = frontier(days, logs)
    if len(frontier_indices) < MIN_MODELS:
        return None
    x, y = days[frontier_indices], logs[frontier_indices]
    slope, intercept = np.polyfit(x - x.mean(), y, 1)
    residual = y - (slope * (x - x.mean()) + intercept)
    return float(slope), float(1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)), frontier_indices


def quantile_line(history: History, quantile: float = QUANTILE) -> tuple[float, float]:
    """Slope per day and height in the middle of the history of the quantile regression of ln density on time."""
    design = np.stack([np.ones_like(history.years), history.years])
    # The dual of the linear program: its two multipliers are the line's height and slope.
    solved = linprog(-history.logs, A_eq=design, b_eq=(1 - quantile) * design.sum(axis=1), bounds=(0, 1), method="highs")
    height, slope = -solved.eqlin.marginals
    return float(slope) / YEAR, float(height)


def quantile_slope(history: History) -> float:
    """Slope per day of the quantile regression."""
    return quantile_line(history)[0]


def censored_fit(history: History) -> tuple[float, float, float]:
    """Slope per day, height in the middle of the history and standard deviation of the normal distribution around the line."""
    years, plain = history.years, history.sides == PLAIN
    slope, height = np.polyfit(years[plain], history.logs[plain], 1) if plain.sum() > 1 and np.ptp(years[plain]) else (0.0, 0.0)
    spread = max(float(np.std(history.logs[plain] - slope * years[plain] - height)) if plain.any() else 1.0, 0.05)
    solved = minimize(_deviance, [height, slope, math.log(spread)], args=(history, years), jac=True, method="BFGS")
    return float(solved.x[1]) / YEAR, float(solved.x[0]), float(math.exp(solved.x[2]))


def censored_slope(history: History) -> float:
    """Slope per day of the censored likelihood."""
    return censored_fit(history)[0]


def _deviance(parameters: Array, history: History, years: Array) -> tuple[float, Array]:
    """Minus the log likelihood, and its gradient."""
    height, slope, log_spread = parameters
    variance = math.exp(2 * min(log_spread, 50.0))
    scale = np.sqrt(variance + history.errors**2)
    z = (history.logs - height - slope * years) / scale
    plain = history.sides == PLAIN
    # A bound "<" has the probability of a value below it, a bound ">" that of a value above.
    side = np.where(history.sides == ABOVE, -1.0, 1.0)
    tail = log_ndtr(side * z)
    likelihood = np.where(plain, -0.5 * z**2 - np.log(scale), tail)
    hazard = side * np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - tail)
    by_mean = np.where(plain, z, -hazard) / scale
    by_scale = np.where(plain, z**2 - 1, -hazard * z) / scale * (variance / scale)
    return -float(likelihood.sum()), -np.array([by_mean.sum(), (by_mean * years).sum(), by_scale.sum()])


def growth(history: History, slope: Slope, shared_error: float = 0.0) -> Interval | None:
    """The rate of growth per day with its 95% interval; `None` with fewer than `MIN_LINES` lines of models.

    Args:
        shared_error: standard deviation of the slope from what all models share.
    """
    lines = len(np.unique(history.lines))
    if lines < MIN_LINES or not (history.sides == PLAIN).any():
        return None
    value = slope(history)
    models = np.arange(len(history.days))
    error = max(_jackknife_error(history, slope, value, clusters) for clusters in (models, history.releases, history.lines))
    reach = float(stdtrit(lines - 1, 0.975)) * math.hypot(error, shared_error)
    return Interval(value=value, low=value - reach, high=value + reach)


def _jackknife_error(history: History, slope: Slope, value: float, clusters: NDArray[np.int64]) -> float:
    numbers = np.unique(clusters)
    left_out = np.array([slope(history.select(clusters != number)) for number in numbers])
    return math.sqrt((len(numbers) - 1) / len(numbers) * float(np.sum((left_out - value) ** 2)))
