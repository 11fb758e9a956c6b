"""AWQ: input channels that carry large activations are scaled up before rounding, so that their weights lose less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.algorithms.grid import Grid, grid_of

# Exponents of the activations' magnitude that are tried, and shares of a group's range that its levels may cover.
EXPONENTS = tuple(step / 20 for step in range(20))
COVERED = tuple(1 - step / 20 for step in range(11))
SMALLEST = 1e-4


class Scaled(NamedTuple):
    """The chosen channel scales (columns,) in float32, their exponent, and the output error there over that of plain rounding."""

    scale: Tensor
    exponent: float
    error: float


def channel_scales(
    weights: Sequence[Tensor], grams: Sequence[Tensor], magnitude: Tensor, bits: int, group_size: int, stored: torch.dtype
) -> Scaled:
    """Scales s = magnitude^exponent that make ||Q(W s) s^-1 X - W X||^2 least: Lin et al. 2023, "AWQ", arXiv 2306.00978, equation 5.

    With the second moments of the inputs at hand the error is a quadratic form of the weights' error and needs no pass over the text.

    Args:
        weights: (rows, columns) in float32, of all linear layers that read the input.
        grams: (columns, columns), of the unscaled inputs, for each weight. magnitude: (columns,), mean |x|.
    """
    best, plain = Scaled(torch.ones_like(magnitude), 0.0, 1.0), 0.0
    for exponent in EXPONENTS:
        scale = magnitude.clamp(min=SMALLEST).pow(exponent).clamp(min=SMALLEST)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = sum(
            output_error(rounded(weight * scale, bits, group_size, stored) / scale - weight, gram)
            for weight, gram in zip(weights, grams, strict=True)
        )
        if exponent == 0:
            plain = error
        elif error < best.error * plain:
            best = Scaled(scale, exponent, error / plain)
    return best


def clipped(weight: Tensor, gram: Tensor, bits: int, group_size: int, stored: torch.dtype) -> Grid:
    """The grid of each group, (rows, groups), whose range is cut by the share that makes the group's output error least.

    Args:
        weight: (rows, columns), already scaled. gram: (columns, columns), of the inputs divided by the same scales.
    """
    rows, columns = weight.shape
    groups = weight.view(rows, -1, group_size)
    blocks = torch.stack([gram[at : at + group_size, at : at + group_size] for at in range(0, columns, group_size)])
    chosen: Grid | None = None
    least = torch.empty(0)
    for share in COVERED:
        cut = groups * share
        grid = grid_of(cut.reshape(-1, group_size), bits, stored, symmetric=False)
        flat = groups.reshape(-1, group_size)
        wrong = (grid.weight(grid.codes(flat, bits)) - flat).view_as(groups)
        error = torch.einsum("rgi,gij,rgj->rg", wrong, blocks, wrong)
        found = Grid(*(part.view(rows, -1) for part in grid))
        if chosen is None:
            chosen, least = found, error
        else:
            better = error < least
            chosen = Grid(*(torch.where(better, new, old) for new, old in zip(found, chosen, strict=True)))
            least = torch.where(better, error, least)
    assert chosen is not None
    return chosen


def rounded(weight: Tensor, bits: int, group_size: int, stored: torch.dtype) -> Tensor:
    """The weight rounded to the nearest level of each group's whole range."""
    flat = weight.reshape(-1, group_size)
    grid = grid_of(flat, bits, stored, symmetric=False)
    return grid.weight(grid.codes(flat, bits)).view_as(weight)


def output_error(wrong: Tensor, gram: Tensor) -> float:
    """Sum of squares of `wrong` (rows, columns) times the inputs whose second moments `gram` holds."""
    return float(((wrong @ gram) * wrong).sum())
