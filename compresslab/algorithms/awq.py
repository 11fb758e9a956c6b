"""AWQ: input channels with large activations are scaled up before rounding, which reduces the error of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.algorithms.grid import Grid, grid_of

# Candidate exponents of the activations' magnitude, and candidate shares of a group's range that its levels cover.
EXPONENTS = tuple(step / 20 for step in range(20))
RANGE_SHARES = tuple(1 - step / 20 for step in range(11))
MIN_MAGNITUDE = 1e-4


class ChannelScales(NamedTuple):
    """The chosen channel scales (columns,) in float32, their exponent, and their output error over that of plain rounding."""

    scale: Tensor
    exponent: float
    error: float


def channel_scales(
    weights: Sequence[Tensor], grams: Sequence[Tensor], magnitude: Tensor, bits: int, group_size: int, stored: torch.dtype
) -> ChannelScales:
    """Scales s = magnitude^exponent that minimize ||Q(W s) s^-1 X - W X||^2: Lin et al. 2023, "AWQ", arXiv 2306.00978, equation 5.

    With the second moments of the inputs the error is a quadratic form of the weights' error, which needs no pass over the text.

    Args:
        weights: (rows, columns) in float32, of all linear layers that read the input.
        grams: (columns, columns), of the unscaled inputs, for each weight. magnitude: (columns,), mean |x|.
    """
    best, plain = ChannelScales(torch.ones_like(magnitude), 0.0, 1.0), 0.0
    for exponent in EXPONENTS:
        scale = magnitude.clamp(min=MIN_MAGNITUDE).pow(exponent).clamp(min=MIN_MAGNITUDE)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = sum(
            output_error(rounded(weight * scale, bits, group_size, stored) / scale - weight, gram)
            for weight, gram in zip(weights, grams, strict=True)
        )
        if exponent == 0:
            plain = error
        elif error < best.error * plain:
            best = ChannelScales(scale, exponent, error / plain)
    return best


def clipped(weight: Tensor, gram: Tensor, bits: int, group_size: int, stored: torch.dtype) -> Grid:
    """The grid of each group, (rows, groups), with its range reduced to the share that minimizes the group's output error.

    Args:
        weight: (rows, columns), already scaled. gram: (columns, columns), of the inputs divided by the same scales.
    """
    rows, columns = weight.shape
    groups = weight.view(rows, -1, group_size)
    blocks = torch.stack([gram[start : start + group_size, start : start + group_size] for start in range(0, columns, group_size)])
    chosen: Grid | None = None
    lowest_error = torch.empty(0)
    for share in RANGE_SHARES:
        clipped_groups = groups * share
        grid = grid_of(clipped_groups.reshape(-1, group_size), bits, stored, symmetric=False)
        flat = groups.reshape(-1, group_size)
        errors = (grid.weight(grid.codes(flat, bits)) - flat).view_as(groups)
        error = torch.einsum("rgi,gij,rgj->rg", errors, blocks, errors)
        candidate = Grid(*(part.view(rows, -1) for part in grid))
        if chosen is None:
            chosen, lowest_error = candidate, error
        else:
            better = error < lowest_error
            chosen = Grid(*(torch.where(better, new, old) for new, old in zip(candidate, chosen, strict=True)))
            lowest_error = torch.where(better, error, lowest_error)
    assert chosen is not None
    return chosen


def rounded(weight: Tensor, bits: int, group_size: int, stored: torch.dtype) -> Tensor:
    """The weight rounded to the nearest level of each group's whole range."""
    flat = weight.reshape(-1, group_size)
    grid = grid_of(flat, bits, stored, symmetric=False)
    return grid.weight(grid.codes(flat, bits)).view_as(weight)


def output_error(errors: Tensor, gram: Tensor) -> float:
    """Sum of squares of the outputs of `errors` (rows, columns), for inputs with the second moments `gram` (columns, columns)."""
    return float(((errors @ gram) * errors).sum())
