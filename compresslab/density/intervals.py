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
    """

    point: float
    lower: Array
    upper: Array
    bound: Bound = ""
    extrapolated: bool = False

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
    """Half the width of the central 68% of the draws: a standard deviation that a few unbounded draws do not spoil."""
    low, high = np.nanquantile(estimate.lower, [0.16, 0.84], method="nearest")
    return float(high - low) / 2


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


def _mean(parts: Sequence[Array], unknown: float) -> Array:
    """Mean over the parts that say something in each draw; `unknown` where they contradict without end, NaN where all are silent."""
    stacked = np.stack(parts)
    silent = np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(silent, 0.0, stacked).sum(axis=0) / (~silent).sum(axis=0)
    return np.asarray(np.where(np.isnan(mean) & ~silent.all(axis=0), unknown, mean))


def precision_mean(parts: Sequence[LogEstimate]) -> LogEstimate | None:
    """Mean weighted by precision, for benchmarks of very unequal size (HumanEval has 164 items, MMLU 14,042).

    Where the parts disagree by more than their own spread allows, the interval is widened by the Birge ratio
    sqrt(Q / (k - 1)), as the Particle Data Group does. A part that is a bound has no precision: then the plain geometric mean counts.
    """
    if len(parts) < 2 or any(part.bound for part in parts):
        return geometric_mean(parts)
    points = np.array([part.point for part in parts])
    spreads = np.maximum([spread(part) for part in parts], TOUCH)
    weight = spreads**-2.0 / np.sum(spreads**-2.0)
    point = float(weight @ points)
    birge = math.sqrt(float(np.sum(((points - point) / spreads) ** 2)) / (len(parts) - 1))
    with np.errstate(invalid="ignore"):
        draws = np.tensordot(weight, np.stack([part.lower for part in parts]), axes=1)
    draws = point + (np.where(np.isnan(draws), point, draws) - point) * max(1.0, birge)
    return LogEstimate(point, draws, draws, "", any(part.extrapolated for part in parts))


def p_value(estimate: LogEstimate) -> float:
    """Two-sided p of the quantity being 1, from its draws: twice the smaller tail, never below what so many draws can show."""
    draws = int(np.sum(~np.isnan(estimate.lower)))
    below, above = int(np.sum(estimate.lower <= TOUCH)), int(np.sum(estimate.upper >= -TOUCH))
    return min(1.0, 2 * (1 + min(below, above)) / (draws + 1))


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
