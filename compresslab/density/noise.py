"""The noise floor: how large a difference must be to be more than two runs of the same step give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from compresslab.density import student
from compresslab.density.intervals import LEVEL
from compresslab.records import Interval
from compresslab.records.noise import ROUNDING


class Spread(NamedTuple):
    """What replicates tell of a difference; the fields are those of `records.NoiseFloor`."""

    effect: float
    degrees: int
    twice: Interval | None
    floor: float | None


def noise_floor(values: Sequence[float], others: Sequence[float]) -> Spread:
    """The difference of two means over runs, and what it is if both are runs of the same step.

    s is the standard deviation between replicates, pooled over both sides (with equal variances) where both have replicates. A side of
    one run has none of its own: it is taken as a run of the same step, which is what is tested. Then (mean - mean) / (s sqrt(1/m + 1/n))
    has Student's t with `degrees` degrees of freedom, and degrees s^2 / sigma^2 is chi-square. With one other run the floor is the 95%
    prediction interval of one more replicate. Replicates that are equal but for `ROUNDING` show no spread, so nothing is said of theirs.

    Args:
        values: (m,) of the replicates, at least two. others: (n,) of the other model, at least one.
    """
    from scipy.special import chdtri  # loads in a fraction of a second, which studies without replicates need not spend

    sides = [np.asarray(side, dtype=np.float64) for side in (values, others)]
    effect = float(sides[0].mean() - sides[1].mean())
    degrees = sum(len(side) - 1 for side in sides)
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in sides if np.ptp(side) > ROUNDING)
    if squares == 0:
        return Spread(effect, degrees, None, None)
    tail, deviation = (1 - LEVEL) / 2, math.sqrt(squares / degrees)
    twice = math.sqrt(2) * deviation
    low, high = (twice * math.sqrt(degrees / float(chdtri(degrees, above))) for above in (tail, 1 - tail))
    t = float(student.quantiles(np.array(1 - tail), degrees))
    floor = t * deviation * math.sqrt(sum(1 / len(side) for side in sides))
    return Spread(effect, degrees, Interval(value=twice, low=low, high=high), floor)
