"""Student's t by numpy alone: a study of published scores does not import scipy, which takes longer to load than the study takes.

With x = sqrt(df) tan(theta), the density of t in theta is proportional to cos(theta)^(df - 1), which is integrated on a grid.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from compresslab.density.references.laws import Array

POINTS = 10_001
MAX_DEGREES = 1e4
"""With more degrees of freedom t is taken as with this many, which differs from the normal distribution by less than 0.1%."""


@lru_cache(maxsize=256)
def _distribution(degrees: float) -> tuple[Array, Array]:
    """theta and the cumulative probability at it."""
    theta: Array = np.linspace(-math.pi / 2, math.pi / 2, POINTS).astype(np.float64)
    density = np.cos(theta).clip(0) ** (degrees - 1)
    cumulative: Array = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return theta, np.asarray(cumulative / cumulative[-1])


def quantiles(probabilities: Array, degrees: float) -> Array:
    """Quantiles of t with `degrees` >= 1 degrees of freedom."""
    degrees = round(min(degrees, MAX_DEGREES), 2)
    theta, cumulative = _distribution(degrees)
    return np.asarray(math.sqrt(degrees) * np.tan(np.interp(probabilities, cumulative, theta)))


def two_sided(t: float, degrees: float) -> float:
    """Probability of a value at least as far from 0 as `t`."""
    degrees = round(min(degrees, MAX_DEGREES), 2)
    theta, cumulative = _distribution(degrees)
    return min(1.0, 2 * float(np.interp(-math.atan(abs(t) / math.sqrt(degrees)), theta, cumulative)))
