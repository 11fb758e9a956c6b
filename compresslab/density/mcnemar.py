"""McNemar's exact test: did right and wrong answers change more in one direction than in the other?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from compresslab.density.references.laws import Array


class Changed(NamedTuple):
    """Items that the parent had right and the child has wrong, the other way round, and the two-sided p of such a difference."""

    lost: int
    gained: int
    p: float


def mcnemar(parent: Array, child: Array) -> Changed | None:
    """The exact (binomial) test on the items whose answers changed.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12.

    Args:
        parent, child: (items,) 1 where right, 0 where wrong.

    Returns:
        `None` where an item may be half right.
    """
    if not np.isin(parent, (0.0, 1.0)).all() or not np.isin(child, (0.0, 1.0)).all():
        return None
    lost, gained = int(((parent == 1) & (child == 0)).sum()), int(((parent == 0) & (child == 1)).sum())
    changed, fewer = lost + gained, min(lost, gained)
    # Of 2^changed ways to draw the directions, those that are at least as one-sided; whole numbers, so that no sum loses digits.
    ways = 2 * sum(math.comb(changed, k) for k in range(fewer + 1))
    return Changed(lost, gained, min(1.0, ways / 2**changed))
