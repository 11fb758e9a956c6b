"""Wanda: a weight matters as much as the input that it multiplies is large."""

from __future__ import annotations

from torch import Tensor


def wanda(weight: Tensor, sum_of_squares: Tensor) -> Tensor:
    """|w_ij| * ||x_j||_2 in float32, (rows, columns): Sun et al. 2023, "A Simple and Effective Pruning Approach", arXiv 2306.11695.

    Args:
        weight: (rows, columns).
        sum_of_squares: (columns,), sum of squares of each input over the calibration tokens.
    """
    return weight.float().abs() * sum_of_squares.float().sqrt()
