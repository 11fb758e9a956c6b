"""Positive quantities on a log scale with their bootstrap draws: intervals, bounds, ratios, means and verdicts.

A quantity outside the reference's range is a bound: its draws are known from one side only. Every draw is therefore a pair
(lower, upper) of logarithms, which are equal for a plain value. Arithmetic follows interval arithmetic: the upper end of a ratio is
the child's upper end over the parent's lower end. An unknown end is 0 or infinity, and a verdict depends only on a known end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from compresslab.density.references.laws import Array
from compresslab.density.student import two_sided
from compresslab.records import Interval, Verdict

Bound = Literal["", "<", ">"]

LEVEL = 0.95
TOLERANCE = 1e-9
"""An interval must lie at least this far from 1, because sums of two equal models may differ in the last bit."""


MAX_UNDEFINED_SHARE = 0.5
"""If more than this share of the draws is undefined, the interval is unbounded."""


@dataclass(frozen=True, eq=False)
class DrawnCount:
    """ln of a positive quantity that is estimated: its value and (draws,) its draws."""

    point: float
    draws: Array

    def times(self, factor: DrawnCount) -> DrawnCount:
        """The product with another quantity, draw by draw."""
        return DrawnCount(self.point + factor.point, self.draws + factor.draws)

    def over(self, divisor: DrawnCount) -> DrawnCount:
        """The quotient by another quantity, draw by draw."""
        return DrawnCount(self.point - divisor.point, self.draws - divisor.draws)

    def interval(self) -> Interval:
        """The value with its 95% percentile interval, on the plain scale."""
        return LogEstimate(self.point, self.draws, self.draws).interval()


@dataclass(frozen=True, eq=False)
class LogEstimate:
    """The logarithm of a positive quantity.

    Attributes:
        point: from all items and the reference's own fit. For a bound, the bound.
        lower, upper: (draws,) ends of the range of each draw; the same array if the quantity is no bound. NaN for an undefined draw:
            see `ratio`.
        bound: "<" if the true value is below `point`, ">" if above, else "".
        extrapolated: read off the reference outside the range it was fitted on.
        width: of a bound, the standard deviation of a reading at the bound; 0 if unknown.
        student: standard error and degrees of freedom, if the draws are quantiles of Student's t (`synthesis`).
    """

    point: float
    lower: Array
    upper: Array
    bound: Bound = ""
    extrapolated: bool = False
    width: float = 0.0
    student: tuple[float, float] | None = None

    def over(self, divisor: float | DrawnCount) -> LogEstimate:
        """The quantity divided by a positive number, which may have draws of its own."""
        if isinstance(divisor, DrawnCount):
            # The median, because the errors of a count need not lie around its own point. Student's t is that of the quantity alone.
            point, draws = float(np.median(divisor.draws)), divisor.draws
            return replace(self, point=self.point - point, lower=self.lower - draws, upper=self.upper - draws, student=None)
        shift = math.log(divisor)
        return replace(self, point=self.point - shift, lower=self.lower - shift, upper=self.upper - shift)

    def interval(self) -> Interval:
        """The value with its 95% percentile interval, on the plain scale; an unknown end is 0 or infinity.

        Quantiles are rounded outwards to a draw, and the interval always contains its value.
        """
        low, high = _ends(self.lower, self.upper)
        with np.errstate(over="ignore"):
            value, low, high = float(np.exp(self.point)), float(np.exp(low)), float(np.exp(high))
        return Interval(value=value, low=min(low, value), high=max(high, value), extrapolated=self.extrapolated, bound=self.bound)


def _ends(lower: Array, upper: Array) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    if np.isnan(lower).mean() > MAX_UNDEFINED_SHARE:
        return -math.inf, math.inf
    # "lower" and "higher" pick draws instead of interpolating, which between finite and infinite ones gives NaN.
    return float(np.nanquantile(lower, tail, method="lower")), float(np.nanquantile(upper, 1 - tail, method="higher"))


def spread(estimate: LogEstimate) -> float:
    """Half the width of the central 68% of the draws: a standard deviation that is robust to a few unbounded draws.

    Infinite if more draws are unbounded, or if too few are defined.
    """
    if np.isnan(estimate.lower).mean() > MAX_UNDEFINED_SHARE:
        return math.inf
    low, high = np.nanquantile(estimate.lower, [0.16, 0.84], method="nearest")
    return float(high - low) / 2 if np.isfinite(low) and np.isfinite(high) else math.inf


def bounded_reading(point: float, draws: Array, fitted: tuple[float, float], limits: tuple[float, float]) -> LogEstimate:
    """A logarithm read off a reference that was fitted on the range `fitted` (plain units) and is read within `limits`.

    A point outside the limits becomes a bound at their end, and one end of its draws is unbounded.
    Draws of a plain point are not clipped, because clipping would understate the uncertainty.
    """
    first, last = math.log(fitted[0]), math.log(fitted[1])
    lowest, highest = math.log(limits[0]), math.log(limits[1])
    if point < lowest:
        return LogEstimate(lowest, np.full_like(draws, -np.inf), np.maximum(draws, lowest), "<", True)
    if point > highest:
        return LogEstimate(highest, np.minimum(draws, highest), np.full_like(draws, np.inf), ">", True)
    # The tolerance keeps rounding in the inversion from flagging the ends of the range.
    return LogEstimate(point, draws, draws, "", not first - TOLERANCE <= point <= last + TOLERANCE)


def ratio(child: LogEstimate, parent: LogEstimate) -> LogEstimate | None:
    """child / parent draw by draw, or `None` if both are bounds on the same side, which leave the ratio unknown.

    If neither is a bound, a draw in which one of them is infinite is undefined (NaN): a resampled fit that cannot reach a loss that
    was measured contradicts the data and has no information about their ratio.
    """
    if child.bound and child.bound == parent.bound:
        return None
    plain = not child.bound and not parent.bound
    flipped: dict[Bound, Bound] = {"": "", "<": ">", ">": "<"}
    with np.errstate(invalid="ignore"):
        lower, upper = child.lower - parent.upper, child.upper - parent.lower
    return LogEstimate(
        child.point - parent.point,
        np.where(np.isfinite(lower), lower, np.nan) if plain else np.where(np.isnan(lower), -np.inf, lower),
        np.where(np.isfinite(upper), upper, np.nan) if plain else np.where(np.isnan(upper), np.inf, upper),
        child.bound or flipped[parent.bound],
        child.extrapolated or parent.extrapolated,
        0.0 if plain else math.hypot(standard_deviation(child), standard_deviation(parent)),
    )


def geometric_mean(estimates: Sequence[LogEstimate]) -> LogEstimate | None:
    """Geometric mean draw by draw; `None` for no estimates, and for bounds on both sides, which leave the mean unknown."""
    bounds: set[Bound] = {estimate.bound for estimate in estimates if estimate.bound}
    if not estimates or len(bounds) == 2:
        return None
    lower, upper = _mean([estimate.lower for estimate in estimates], -np.inf), _mean([estimate.upper for estimate in estimates], np.inf)
    return LogEstimate(
        float(np.mean([estimate.point for estimate in estimates])),
        lower,
        upper,
        bounds.pop() if bounds else "",
        any(estimate.extrapolated for estimate in estimates),
    )


def _mean(estimates: Sequence[Array], unknown: float) -> Array:
    """Mean over the defined estimates of each draw; `unknown` where infinities of both signs meet, NaN where none is defined."""
    stacked = np.stack(estimates)
    silent = np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(silent, 0.0, stacked).sum(axis=0) / (~silent).sum(axis=0)
    return np.asarray(np.where(np.isnan(mean) & ~silent.all(axis=0), unknown, mean))


def standard_deviation(estimate: LogEstimate) -> float:
    """The standard deviation that gives an estimate's weight: that of its draws, or for a bound its `width`."""
    return (estimate.width or math.inf) if estimate.bound else spread(estimate)


def p_value(estimate: LogEstimate, *, heavy_tails: bool = False) -> float:
    """Two-sided p of the quantity being 1, from its draws: twice the smaller tail; 1 if most draws are undefined.

    If no draw reaches 1, the tail is that of a normal distribution with the spread of the draws. A count has the minimum 2 / (draws + 1),
    which the correction for many variants would never let pass. Of few items or groups it is too small (`draws._widening`). An estimate
    over several benchmarks has the p of its Student's t. With `heavy_tails` (Student's t of few replicates) the count stands.
    """
    if estimate.student is not None:
        error, degrees = estimate.student
        return two_sided(estimate.point / max(error, TOLERANCE), degrees)
    draws = int(np.sum(~np.isnan(estimate.lower)))
    if draws < MAX_UNDEFINED_SHARE * len(estimate.lower):
        return 1.0
    below, above = int(np.sum(estimate.lower <= TOLERANCE)), int(np.sum(estimate.upper >= -TOLERANCE))
    counted = min(1.0, 2 * (1 + min(below, above)) / (draws + 1))
    deviation = spread(estimate)
    if heavy_tails or min(below, above) or estimate.bound or not np.isfinite(deviation):
        return counted
    return min(counted, math.erfc(abs(estimate.point) / max(deviation, TOLERANCE) / math.sqrt(2)))


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p: discoveries at q <= 0.05 have an expected share of 5% false ones."""
    order = np.argsort(p)
    ranked = np.asarray(p, dtype=np.float64)[order] * len(p) / np.arange(1, len(p) + 1)
    smallest = np.minimum.accumulate(ranked[::-1])[::-1]
    q = np.empty(len(p))
    q[order] = np.minimum(smallest, 1.0)
    return [float(value) for value in q]


def difference(child: float, parent: float, draws: Array) -> Interval:
    """A plain difference child - parent with the 95% interval of its draws."""
    low, high = _ends(draws, draws)
    value = child - parent
    return Interval(value=value, low=min(low, value), high=max(high, value))


def verdict(interval: Interval | None) -> Verdict:
    """The verdict "raised" or "lowered" if the whole interval lies on one side of 1, else "inconclusive"."""
    if interval is not None and interval.low > 1 + TOLERANCE:
        return "raised"
    if interval is not None and interval.high < 1 - TOLERANCE:
        return "lowered"
    return "inconclusive"
