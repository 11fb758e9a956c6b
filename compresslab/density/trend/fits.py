"""Rates of growth of ln density with time, with intervals that take models of one release as one observation.

Three fits:

- `frontier_fit`: least squares through the record setters, as the Densing Law papers do it. Record setters rise by construction: the line
  has a positive slope also where nothing grows, and no interval of it can be right. It is kept for comparison.
- `quantile_line`: the line below which 90% of the models lie (Koenker and Bassett 1978), censored (Powell 1986): where the line leaves the
  densities at which a model can be read, the model is compared with the end of them. Bounds taken as values would pull the line to them: in
  simulated histories of MMLU with a growth of 0.007 the slope would be 0.0053 (`experiments/trend`).
- `censored_fit`: maximum likelihood of a normal distribution of ln density around a line. A plain reading contributes its density, with its
  own error added to the spread; one that is known only to lie below (above) a bound contributes the probability of that. It
  describes the middle of the models, and the frontier too if the spread does not change. It takes each benchmark of a model as a reading,
  with a height and a spread of each benchmark and one growth. Such a pooled likelihood is consistent although the readings of a model are
  correlated (Robinson 1982); the intervals leave out whole models. A mean over benchmarks would not do: with one bound in it, it is a
  bound that lies near the value, while the likelihood takes the place of a bound as independent of the value.

Their intervals: models of one release (a family on a day) share data and recipe, and so, to a degree, do the releases of one line of models
(Qwen, Llama). Each model, each release and each line is left out as a whole (the delete-one-cluster jackknife, CV3 of MacKinnon, Nielsen
and Webb 2023), and the widest of the three intervals counts. How well such an error is known does not follow from the number of clusters:
half of the models are of two lines, and few lines reach far in time. The critical value is that of Student's t with the degrees of freedom
of Bell and McCaffrey 2002 for the dates at hand, taken for least squares and independent models. The error that all models share, that of
the reference's fit, is added. `experiments/trend/simulate.py` tests the intervals on histories whose growth is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
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
    """Readings of dated models, one entry each: the mean over its benchmarks of each model, or each benchmark of each.

    Attributes:
        days: of the release. logs: ln density, or the bound of it. errors: standard deviation of ln density from the model's scores.
        sides: `BELOW` if the true value lies below `logs`, `ABOVE` if above, else `PLAIN`.
        lowest, highest: ends of the ln density at which the model can be read; beyond them it would be a bound.
        models, releases, lines: number of the model, of its release, and of its line of models.
        benchmarks: number of the benchmark, counted from 0; 0 for a mean.
    """

    days: Array
    logs: Array
    errors: Array
    sides: NDArray[np.int64]
    lowest: Array
    highest: Array
    models: NDArray[np.int64]
    releases: NDArray[np.int64]
    lines: NDArray[np.int64]
    benchmarks: NDArray[np.int64]

    @property
    def years(self) -> Array:
        """Years from the middle of the history; slopes are per year inside the fits, whose numbers are then near 1."""
        return np.asarray((self.days - self.days.mean()) / YEAR)


Slopes = Callable[[History, Array], Array]
"""The rate of growth per day for each row of (rows, models) weights of the models."""


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
    """Slope per day and height in the middle of the history of the censored quantile regression of ln density on time."""
    slopes, heights = _quantile_lines(history, np.ones((1, len(history.days))), quantile)
    return float(slopes[0]) / YEAR, float(heights[0])


def quantile_slopes(history: History, weights: Array) -> Array:
    """Slope per day of the quantile regression for each row of weights."""
    return _quantile_lines(history, weights, QUANTILE)[0] / YEAR


def _quantile_lines(history: History, weights: Array, quantile: float) -> tuple[Array, Array]:
    """Slope per year and height. The best line goes through two models; every such line is tried, as the loss has several minima."""
    years, logs = history.years, history.logs
    first, second = np.triu_indices(len(logs), 1)
    apart = years[first] != years[second]
    first, second = first[apart], second[apart]
    slopes = (logs[second] - logs[first]) / (years[second] - years[first])
    heights = logs[first] - slopes * years[first]
    residuals = logs - np.clip(heights[:, None] + slopes[:, None] * years, history.lowest, history.highest)
    losses = np.maximum(quantile * residuals, (quantile - 1) * residuals)
    best = np.argmin(losses @ weights.T, axis=0)
    return slopes[best], heights[best]


def censored_fit(history: History) -> tuple[float, Array, Array]:
    """Slope per day, and for each benchmark the height in the middle of the history and the spread around the line."""
    slope, heights, log_spreads = _parts(_most_likely(history, np.ones(len(history.days)), _start(history)))
    return float(slope) / YEAR, heights, np.exp(log_spreads)


def censored_slopes(history: History, weights: Array) -> Array:
    """Slope per day of the censored likelihood for each row of weights."""
    start = _most_likely(history, np.ones(len(history.days)), _start(history))
    return np.array([_most_likely(history, row, start)[0] for row in weights]) / YEAR


def _parts(parameters: Array) -> tuple[float, Array, Array]:
    """Slope per year, and the height and ln of the spread of each benchmark."""
    heights, log_spreads = parameters[1:].reshape(2, -1)
    return float(parameters[0]), heights, log_spreads


def _start(history: History) -> Array:
    """Slope per year of least squares through the plain readings, and heights and ln of the spreads around it."""
    years, logs, plain = history.years, history.logs, history.sides == PLAIN
    slope = float(np.polyfit(years[plain], logs[plain], 1)[0]) if plain.sum() > 1 and np.ptp(years[plain]) else 0.0
    # Of a benchmark with bounds alone, the bounds are where the search begins.
    numbers = range(int(history.benchmarks.max()) + 1)
    of_each = [own & plain if (own & plain).any() else own for own in (history.benchmarks == number for number in numbers)]
    residuals = logs - slope * years
    spreads = [max(float(residuals[own].std()), 0.05) for own in of_each]
    return np.array([slope, *(residuals[own].mean() for own in of_each), *np.log(spreads)])


def _most_likely(history: History, weights: Array, start: Array) -> Array:
    solved = minimize(_deviance, start, args=(history, history.years, weights), jac=True, method="L-BFGS-B", options={"ftol": 1e-12})
    return np.asarray(solved.x)


def _deviance(parameters: Array, history: History, years: Array, weights: Array) -> tuple[float, Array]:
    """Minus the weighted log likelihood, and its gradient."""
    slope, heights, log_spreads = _parts(parameters)
    variance = np.exp(2 * np.minimum(log_spreads, 50.0))[history.benchmarks]
    scale = np.sqrt(variance + history.errors**2)
    z = (history.logs - heights[history.benchmarks] - slope * years) / scale
    plain = history.sides == PLAIN
    # A bound "<" has the probability of a value below it, a bound ">" that of a value above.
    side = np.where(history.sides == ABOVE, -1.0, 1.0)
    tail = log_ndtr(side * z)
    likelihood = np.where(plain, -0.5 * z**2 - np.log(scale), tail)
    hazard = side * np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - tail)
    by_mean = weights * np.where(plain, z, -hazard) / scale
    by_scale = weights * np.where(plain, z**2 - 1, -hazard * z) / scale * (variance / scale)
    by_benchmark = [np.bincount(history.benchmarks, values, len(heights)) for values in (by_mean, by_scale)]
    return -float(weights @ likelihood), -np.concatenate([[by_mean @ years], *by_benchmark])


def growth(history: History, slopes: Slopes, shared_error: float = 0.0) -> Interval | None:
    """The rate of growth per day with its 95% interval.

    `None` with fewer than `MIN_LINES` lines of models, without a plain density, or if all models but one cluster's have one date.

    Args:
        shared_error: standard deviation of the slope from what all models share.
    """
    if len(np.unique(history.lines)) < MIN_LINES or not (history.sides == PLAIN).any():
        return None
    everyone, reach = np.ones((1, len(history.days))), 0.0
    clusterings = (history.models, history.releases, history.lines)
    _, one_each = np.unique(history.models, return_index=True)
    left_out = [clusters != np.unique(clusters)[:, None] for clusters in clusterings]
    if any(np.ptp(history.days[kept]) == 0 for rows in left_out for kept in rows):
        return None
    value, *found = slopes(history, np.concatenate([everyone, *left_out]))
    for clusters, rows in zip(clusterings, left_out, strict=True):
        changes, found = np.array(found[: len(rows)]) - value, found[len(rows) :]
        error = math.sqrt((len(rows) - 1) / len(rows) * float(np.sum(changes**2)))
        variance = error**2 + shared_error**2
        # Satterthwaite 1946: the shared error counts as known.
        degrees = _degrees_of_freedom(history.years[one_each], clusters[one_each]) * (variance / error**2) ** 2 if error else np.inf
        reach = max(reach, float(stdtrit(degrees, 0.975)) * math.sqrt(variance))
    return Interval(value=value, low=value - reach, high=value + reach)


def _degrees_of_freedom(years: Array, clusters: NDArray[np.int64]) -> float:
    """Of the jackknife variance of a least squares slope whose observations are independent with one variance.

    Each change of the slope when a cluster is left out is linear in the observations, so the variance is a quadratic form in them. Its mean
    and variance give the chi-square distribution that is nearest to it.
    """
    design = np.stack([np.ones_like(years), years], axis=1)
    whole = design.T @ design
    residuals = np.eye(len(years)) - design @ np.linalg.solve(whole, design.T)
    changes = []
    for number in np.unique(clusters):
        chosen = clusters == number
        part = design[chosen]
        changes.append(np.linalg.solve(whole - part.T @ part, part.T @ residuals[chosen])[1])
    covariance = np.stack(changes) @ np.stack(changes).T
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))
