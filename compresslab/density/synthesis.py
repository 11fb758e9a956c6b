"""One estimate over the benchmarks of a published table: random-effects synthesis.

Each benchmark gives an estimate y_i of the same quantity (ln N_hat, or ln of a ratio) with a known variance v_i. Benchmarks differ by
more than their errors, because a benchmark is not a model's capability: y_i = mu + u_i + e_i with u_i of variance tau^2.

- tau^2: Paule and Mandel 1982 (J. Res. NBS 87), which solves Q(tau^2) = k - 1.
- Weights 1 / (v_i + tau^2), where tau^2 counts as at least `MIN_HETEROGENEITY`^2: with few benchmarks the estimate of tau^2 is often 0, and
  then one precise benchmark would take nearly all the weight.
- Interval: Hartung and Knapp 2001 (Stat. Med. 20), Sidik and Jonkman 2002: the weighted residuals' variance with Student's t on k - 1
  degrees of freedom. It is never narrower than the normal interval from the known errors alone, since benchmarks may agree by chance.
  The literature's other safeguard, a factor q of at least 1, covers 98 to 100% with two benchmarks (`experiments/ruler/synthesis.py`).
- What the benchmarks' errors have in common (the reference's fit and its models' scatter) does not show in their differences. Its
  variance is added, with the degrees of freedom of Satterthwaite 1946.
- Prediction interval: where r on one more benchmark of the same kind is expected (Higgins, Thompson and Spiegelhalter 2009, with k - 1
  degrees of freedom), with the same least tau^2. Without it the interval held one more benchmark in 78 to 95% of simulated cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compresslab.density import student
from compresslab.density.intervals import LEVEL, Bound, LogEstimate, geometric_mean, standard_deviation
from compresslab.density.references.laws import Array

Error = Callable[[float], tuple[float, float]]
"""From a factor of the number of items to the variance of an estimate and its degrees of freedom."""

MIN_HETEROGENEITY = 0.2
"""Least standard deviation of ln r between benchmarks in the weights and in the prediction."""

MIN_VARIANCE = 1e-12
MAX_STEPS = 200
MAX_CORRELATION = 0.9
"""Largest mean correlation of the benchmarks' errors, so that each keeps an error of its own."""


@dataclass(frozen=True, eq=False)
class Synthesis:
    """The mean over benchmarks, the prediction for one more of them (`None` for fewer than three benchmarks and for a bound), and tau."""

    mean: LogEstimate
    prediction: LogEstimate | None
    heterogeneity: float


def synthesize(parts: Sequence[LogEstimate], *, equal_weights: bool = False) -> Synthesis | None:
    """The synthesis of one estimate a benchmark; `None` for no estimates, and for bounds on both sides, which leave the mean unknown.

    A mean with a bound is a bound on the same side; a bound enters with its `width`. An estimate without a known error is left out if
    others have one.
    """
    bounds: set[Bound] = {part.bound for part in parts if part.bound}
    errors = np.array([standard_deviation(part) for part in parts])
    unknown_bound = any(part.bound and not np.isfinite(error) for part, error in zip(parts, errors, strict=True))
    if len(bounds) == 2 or not parts:
        return None
    if len(parts) == 1 or unknown_bound or not np.isfinite(errors).any():
        mean = geometric_mean(parts)
        return None if mean is None else Synthesis(mean, None, 0.0)
    known = [part for part, error in zip(parts, errors, strict=True) if np.isfinite(error)]
    if len(known) == 1:
        return Synthesis(known[0], None, 0.0)
    bound = bounds.pop() if bounds else ""
    points, variances, covariance, draws = _moments(known)
    own = own_variances(variances, covariance)
    weights, heterogeneity = weigh(points, own)
    if equal_weights:
        weights = np.full(len(known), 1 / len(known))
    point = float(weights @ points)
    variance, degrees = mean_error(points, own, weights, _shared(weights, covariance))
    # The draws keep their ranks, so that what several models have in common still cancels.
    ranks = np.argsort(np.argsort(weights @ draws, kind="stable"), kind="stable")
    mean = _spread_out(point, variance, degrees, ranks)
    mean = replace(mean, extrapolated=any(part.extrapolated for part in parts))
    if bound:
        unknown = np.full_like(mean.lower, -np.inf if bound == "<" else np.inf)
        lower, upper = (unknown, mean.upper) if bound == "<" else (mean.lower, unknown)
        return Synthesis(replace(mean, lower=lower, upper=upper, bound=bound, student=None), None, math.sqrt(heterogeneity))
    prediction = None
    if len(known) > 2:
        between = max(heterogeneity, MIN_HETEROGENEITY**2)
        prediction = replace(_spread_out(point, variance + between, len(known) - 1, ranks), extrapolated=mean.extrapolated)
    return Synthesis(mean, prediction, math.sqrt(heterogeneity))


def expected_error(parts: Sequence[LogEstimate], of_items: Array) -> Error:
    """Variance of the mean over benchmarks and its degrees of freedom, as expected with a factor as many items of each benchmark.

    The items' part of each benchmark's variance falls as 1 / factor. The reference's part, what the benchmarks share, and tau^2 stay:
    tau^2 is a property of the benchmarks, and it is in the sum once. The sum is sum(w_i^2 (v_i + tau^2)) + shared, the expectation of the
    variance that `mean_error` takes from the residuals.

    Args:
        parts: two or more estimates, one a benchmark, none of them a bound and each with a known error.
        of_items: (parts,) variance of each that comes from its items.
    """
    points, variances, covariance, _ = _moments(parts)
    _, tau2 = weigh(points, own_variances(variances, covariance))

    def error(factor: float) -> tuple[float, float]:
        left = np.maximum(variances - of_items, MIN_VARIANCE) + of_items / factor
        # The covariance of two benchmarks is that of the reference; only their own variances change.
        changed = np.where(np.eye(len(parts), dtype=bool), covariance * left / variances, covariance)
        own = own_variances(left, changed)
        weights = 1 / (own + max(tau2, MIN_HETEROGENEITY**2))
        weights /= weights.sum()
        between, degrees = float(weights**2 @ (own + tau2)), len(parts) - 1
        variance = between + _shared(weights, changed)
        return variance, degrees * (variance / between) ** 2

    return error


def _moments(parts: Sequence[LogEstimate]) -> tuple[Array, Array, Array, Array]:
    """Points, variances and covariance of some estimates, and their draws without far ones."""
    draws = np.stack([_tame(part) for part in parts])
    variances = np.array([max(standard_deviation(part) ** 2, MIN_VARIANCE) for part in parts])
    return np.array([part.point for part in parts]), variances, np.asarray(np.cov(draws), dtype=np.float64), draws


def own_variances(variances: Array, covariance: Array) -> Array:
    """The variances without the share that all estimates have in common, by their mean correlation."""
    deviations = np.sqrt(np.maximum(covariance.diagonal(), MIN_VARIANCE))
    correlations = (covariance / np.outer(deviations, deviations))[~np.eye(len(variances), dtype=bool)]
    return variances * (1 - float(np.clip(correlations.mean(), 0.0, MAX_CORRELATION)))


def _shared(weights: Array, covariance: Array) -> float:
    """Variance of the weighted mean that comes from what the estimates have in common."""
    return max(0.0, float(weights @ np.where(np.eye(len(weights), dtype=bool), 0.0, covariance) @ weights))


def weigh(points: Array, own: Array) -> tuple[Array, float]:
    """The weights of estimates with the variances `own`, and tau^2."""
    heterogeneity = paule_mandel(points, own)
    weights = 1 / (own + max(heterogeneity, MIN_HETEROGENEITY**2))
    return weights / weights.sum(), heterogeneity


def paule_mandel(points: Array, variances: Array) -> float:
    """tau^2 at which the weighted sum of squares about the mean equals its expectation k - 1; 0 if it is smaller even without tau^2.

    Newton's steps from 0, as DerSimonian and Kacker 2007 give them. The sum is convex in tau^2, so no step goes too far.
    """
    tau2, scale = 0.0, float(variances.mean())
    for _ in range(MAX_STEPS):
        weights = 1 / (variances + tau2)
        squares = weights * (points - weights @ points / weights.sum()) ** 2
        excess = float(squares.sum()) - (len(points) - 1)
        if excess <= 0:
            break
        step = excess / float(weights @ squares)
        tau2 += step
        if step < 1e-9 * (tau2 + scale):
            break
    return tau2


def mean_error(points: Array, own: Array, weights: Array, shared: float) -> tuple[float, float]:
    """Variance of the weighted mean and its degrees of freedom. `shared`: variance of what all estimates have in common."""
    mean, degrees = float(weights @ points), len(points) - 1
    between = float(weights @ (points - mean) ** 2) / degrees
    known = float(weights**2 @ own)
    tail = np.array([(1 + LEVEL) / 2])
    t, z = (float(student.quantiles(tail, of)[0]) for of in (degrees, student.MAX_DEGREES))
    if z * math.sqrt(known) >= t * math.sqrt(between):
        return known + shared, student.MAX_DEGREES
    variance = between + shared
    return variance, degrees * (variance / between) ** 2


def _spread_out(point: float, variance: float, degrees: float, ranks: NDArray[np.intp]) -> LogEstimate:
    """An estimate whose draws are the quantiles of Student's t in the order `ranks`."""
    error = math.sqrt(variance)
    draws = point + error * student.quantiles((ranks + 0.5) / len(ranks), degrees)
    return LogEstimate(point, draws, draws, student=(error, degrees))


def _tame(part: LogEstimate) -> Array:
    """The draws of an estimate without undefined and far ones, for their covariance. A bound has none that are known on both sides."""
    if part.bound:
        return np.full_like(part.lower, part.point)
    finite = np.where(np.isfinite(part.lower), part.lower, np.nan)
    middle, error = float(np.nanmedian(finite)), standard_deviation(part)
    return np.clip(np.where(np.isnan(finite), middle, finite), middle - 3 * error, middle + 3 * error)
