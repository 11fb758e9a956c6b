"""Wanda: importance of a weight from its magnitude and the norm of its input."""

from __future__ import annotations

from torch import Tensor


def wanda(weight: Tensor, sum_of_squares: Tensor) -> Tensor:
    """|w_ij| * ||x_j||_2 in float32, (rows, columns): Sun et al. 2023, "A Simple and Effective Pruning Approach", arXiv 2306.11695.

    Args:
        weight: (rows, columns).
        sum_of_squares: (columns,), sum of squares of each input over the calibration tokens.
    """
    return weight.float().abs() * sum_of_squares.float().sqrt()
