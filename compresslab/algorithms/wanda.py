"""Wanda: a weight matters as much as the input that it multiplies is large."""

from __future__ import annotations

from torch import Tensor


def wanda(weight: Tensor, gram: Tensor) -> Tensor:
    """|w_ij| * ||x_j||_2 in float32, (rows, columns): Sun et al. 2023, "A Simple and Effective Pruning Approach", arXiv 2306.11695.

    Args:
        weight: (rows, columns).
        gram: (columns, columns), sum of x x^T over calibration tokens; its diagonal holds the squared norms.
    """
    return weight.float().abs() * gram.diagonal().clamp(min=0).sqrt()
