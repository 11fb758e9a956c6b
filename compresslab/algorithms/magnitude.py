"""Magnitude pruning: the baseline that uses the weights alone."""

from __future__ import annotations

from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w| in float32, (rows, columns): Han et al. 2015, "Learning both Weights and Connections", arXiv 1506.02626."""
    return weight.float().abs()
