"""Ranking of runs of neighbouring layers by the distance between their ends."""

from __future__ import annotations

from torch import Tensor


def runs_by_distance(distances: Tensor, length: int) -> list[int]:
    """First layers of all runs of `length` layers, sorted by rising distance of their ends; equal ones keep their order.

    Source: Gromov et al. 2024, "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, section 3.2: the best run to
    drop has the smallest angular distance between the hidden states before layers l and l + length.

    Args:
        distances: (layers + 1, layers + 1) between the states before layers i and j; the last is that after all layers.
    """
    ends = distances.diagonal(length).tolist()
    return sorted(range(len(ends)), key=lambda first: (ends[first], first))
