"""Positive quantities on a log scale with their bootstrap draws: intervals, bounds, ratios, means and verdicts.

A quantity that left the ruler is a bound: its draws are then known from one side only. Every draw is therefore a pair
(lower, upper) of logarithms, equal for a plain value, and all arithmetic keeps them sound: the upper end of a ratio is
the child's upper end over the parent's lower end. What one side does not know becomes 0 or infinity, and a verdict
can rest only on a side that is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compresslab.records import Interval, Verdict

Array = NDArray[np.float64]
Bound = Literal["", "<", ">"]

LEVEL = 0.95
TOUCH = 1e-9
"""An interval must clear 1 by this much: two equal models may differ in the last bit of a sum."""


SILENT = 0.5
"""Where more than this share of the draws says nothing, nothing is known."""


@dataclass(frozen=True, eq=False)
class LogEstimate:
    """The logarithm of a positive quantity.

    Attributes:
        point: from all items and the reference's own fit. For a bound, the bound.
        lower, upper: (draws,) ends of what each draw allows; the same array where the quantity is no bound. NaN where a draw says
            nothing: see `ratio`.
        bound: "<" if the truth is below `point`, ">" if above, else "".
        extrapolated: read off the reference outside the range it was fitted on.
        width: of a bound, the standard deviation that a reading at the bound would have; 0 where nobody said.
    """

    point: float
    lower: Array
    upper: Array
    bound: Bound = ""
    extrapolated: bool = False
    width: float = 0.0

    def over(self, divisor: float) -> LogEstimate:
        """The quantity divided by a known positive number."""
        shift = math.log(divisor)
        return replace(self, point=self.point - shift, lower=self.lower - shift, upper=self.upper - shift)

    def interval(self) -> Interval:
        """The value with its 95% percentile interval, on the plain scale; an end that is not known is 0 or infinity.

        Order statistics are taken outwards, and the interval always holds its value.
        """
        low, high = _ends(self.lower, self.upper)
        with np.errstate(over="ignore"):
            value, low, high = float(np.exp(self.point)), float(np.exp(low)), float(np.exp(high))
        return Interval(value=value, low=min(low, value), high=max(high, value), extrapolated=self.extrapolated, bound=self.bound)


def _ends(lower: Array, upper: Array) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    if np.isnan(lower).mean() > SILENT:
        return -math.inf, math.inf
    # "lower" and "higher" pick draws instead of interpolating, which between finite and infinite ones gives NaN.
    return float(np.nanquantile(lower, tail, method="lower")), float(np.nanquantile(upper, 1 - tail, method="higher"))


def spread(estimate: LogEstimate) -> float:
    """Half the width of the central 68% of the draws: a standard deviation that a few unbounded draws do not spoil.

    Infinite where more draws than that are unbounded, or where too few say anything.
    """
    if np.isnan(estimate.lower).mean() > SILENT:
        return math.inf
    low, high = np.nanquantile(estimate.lower, [0.16, 0.84], method="nearest")
    return float(high - low) / 2 if np.isfinite(low) and np.isfinite(high) else math.inf


def on_the_ruler(point: float, draws: Array, fitted: tuple[float, float], reach: float) -> LogEstimate:
    """A logarithm read off a ruler that was fitted on `fitted` (plain units) and is believed a factor `reach` beyond.

    A point outside becomes a bound at the end of what is believed, and its draws say only on which side they are.
    Draws of a plain point are left alone: they measure uncertainty, and clipping them would shrink it.
    """
    first, last = math.log(fitted[0]), math.log(fitted[1])
    lowest, highest = first - math.log(reach), last + math.log(reach)
    if point < lowest:
        return LogEstimate(lowest, np.full_like(draws, -np.inf), np.maximum(draws, lowest), "<", True)
    if point > highest:
        return LogEstimate(highest, np.minimum(draws, highest), np.full_like(draws, np.inf), ">", True)
    # Rounding in the inversion must not flag the range's own ends.
    return LogEstimate(point, draws, draws, "", not first - TOUCH <= point <= last + TOUCH)


def ratio(child: LogEstimate, parent: LogEstimate) -> LogEstimate | None:
    """child / parent draw by draw, or `None` if both are bounds on the same side: then nothing is known of it.

    Where neither is a bound, a draw that puts one of them beyond all sizes is silent: a resampled fit that says the loss that was
    measured cannot be reached speaks against itself, and says nothing about their ratio.
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
        0.0 if plain else math.hypot(width_of(child), width_of(parent)),
    )


def geometric_mean(parts: Sequence[LogEstimate]) -> LogEstimate | None:
    """Geometric mean draw by draw; `None` of nothing, or of bounds on both sides, which leave the mean unknown."""
    bounds: set[Bound] = {part.bound for part in parts if part.bound}
    if not parts or len(bounds) == 2:
        return None
    lower, upper = _mean([part.lower for part in parts], -np.inf), _mean([part.upper for part in parts], np.inf)
    return LogEstimate(
        float(np.mean([part.point for part in parts])),
        lower,
        upper,
        bounds.pop() if bounds else "",
        any(part.extrapolated for part in parts),
    )


def _mean(parts: Sequence[Array], unknown: float, weight: Array | None = None) -> Array:
    """Mean over the parts that say something in each draw; `unknown` where they contradict without end, NaN where all are silent."""
    stacked = np.stack(parts)
    weights = np.ones(len(parts)) if weight is None else weight
    stacked, weights = stacked[weights > 0], weights[weights > 0, None]
    silent = np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (np.where(silent, 0.0, stacked) * weights).sum(axis=0) / (~silent * weights).sum(axis=0)
    return np.asarray(np.where(np.isnan(mean) & ~silent.all(axis=0), unknown, mean))


def precision_mean(parts: Sequence[LogEstimate]) -> LogEstimate | None:
    """Mean weighted by precision, for benchmarks of very unequal size (HumanEval has 164 items, MMLU 14,042).

    Where the parts disagree by more than their own spread allows, the interval is widened by the Birge ratio
    sqrt(Q / (k - 1)), as the Particle Data Group does. In each draw the parts that say nothing are left out. The weight of a
    bound is that of its `width`; if one is there the mean is a bound too, on the same side. The plain mean where no weights can be had.
    """
    widths = np.array([width_of(part) for part in parts])
    unknown_bound = any(part.bound and not np.isfinite(width) for part, width in zip(parts, widths, strict=True))
    if len(parts) < 2 or unknown_bound or not np.isfinite(widths).any():
        return geometric_mean(parts)
    bounds: set[Bound] = {part.bound for part in parts if part.bound}
    if len(bounds) == 2:
        return None
    points = np.array([part.point for part in parts])
    weight = np.where(np.isfinite(widths), np.maximum(widths, TOUCH) ** -2.0, 0.0)
    weight /= weight.sum()
    point = float(weight @ points)
    there = weight > 0
    birge = math.sqrt(float(np.sum(((points - point)[there] / widths[there].clip(TOUCH)) ** 2)) / max(int(there.sum()) - 1, 1))
    ends = []
    for unknown, side in ((-np.inf, [part.lower for part in parts]), (np.inf, [part.upper for part in parts])):
        mean = _mean(side, unknown, weight)
        ends.append(np.where(np.isfinite(mean), point + (mean - point) * max(1.0, birge), mean))
    return LogEstimate(point, ends[0], ends[1], bounds.pop() if bounds else "", any(part.extrapolated for part in parts))


def width_of(part: LogEstimate) -> float:
    """The standard deviation that a part is weighed by: of its draws, or as stated for a bound, whose draws show no spread."""
    return (part.width or math.inf) if part.bound else spread(part)


def p_value(estimate: LogEstimate) -> float:
    """Two-sided p of the quantity being 1, from its draws: twice the smaller tail; 1 where most draws say nothing.

    Where no draw reaches 1 at all, the tail is that of a normal curve through the draws: a count would stop at 2 / (draws + 1), and a study
    of many variants could never say anything.
    """
    draws = int(np.sum(~np.isnan(estimate.lower)))
    if draws < SILENT * len(estimate.lower):
        return 1.0
    below, above = int(np.sum(estimate.lower <= TOUCH)), int(np.sum(estimate.upper >= -TOUCH))
    counted = min(1.0, 2 * (1 + min(below, above)) / (draws + 1))
    wide = spread(estimate)
    if min(below, above) or estimate.bound or not np.isfinite(wide):
        return counted
    return min(counted, math.erfc(abs(estimate.point) / max(wide, TOUCH) / math.sqrt(2)))


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p: a discovery at q <= 0.05 keeps the expected share of false ones at 5%."""
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


def verdict(of: Interval | None) -> Verdict:
    """Either "raised" or "lowered" if the whole interval lies on one side of 1, else "inconclusive"."""
    if of is not None and of.low > 1 + TOUCH:
        return "raised"
    if of is not None and of.high < 1 - TOUCH:
        return "lowered"
    return "inconclusive"
