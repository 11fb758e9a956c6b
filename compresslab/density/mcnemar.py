"""McNemar's exact test: whether answers changed more often in one direction (right to wrong) than in the other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from compresslab.density.references.laws import Array


class AnswerChanges(NamedTuple):
    """Items right in the parent and wrong in the child, items wrong in the parent and right in the child, and the two-sided p."""

    lost: int
    gained: int
    p: float


def mcnemar(parent: Array, child: Array) -> AnswerChanges | None:
    """The exact (binomial) test on the items whose answers changed.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12.

    Args:
        parent, child: (items,) 1 where right, 0 where wrong.

    Returns:
        `None` if an item is neither 0 nor 1.
    """
    if not np.isin(parent, (0.0, 1.0)).all() or not np.isin(child, (0.0, 1.0)).all():
        return None
    lost, gained = int(((parent == 1) & (child == 0)).sum()), int(((parent == 0) & (child == 1)).sum())
    return AnswerChanges(lost, gained, two_sided(lost, gained))


def two_sided(lost: int, gained: int) -> float:
    """The p of McNemar's exact test for this number of changes in each direction."""
    changed, fewer = lost + gained, min(lost, gained)
    # The directions that are at least as one-sided, out of 2^changed. Integers keep the sum exact.
    ways = 2 * sum(itertools.accumulate(range(1, fewer + 1), lambda count, k: count * (changed - k + 1) // k, initial=1))
    return min(1.0, ways / (1 << changed))
