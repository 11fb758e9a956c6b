"""GPTQ: rounds weights column by column and compensates the error in the later columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.algorithms.feedback import ErrorFeedback
from compresslab.algorithms.grid import Grid, grid_of


class Rounded(NamedTuple):
    """A rounded weight: codes (rows, columns) in uint8 and the grid of each group, (rows, groups) in float32."""

    codes: Tensor
    grid: Grid

    def weight(self) -> Tensor:
        """The dequantized weight, (rows, columns) in float32."""
        rows, groups = self.grid.scale.shape
        grouped = self.codes.float().view(rows, groups, -1)
        return Grid(self.grid.scale[..., None], self.grid.zero[..., None]).weight(grouped).view(rows, -1)


def gptq(
    weight: Tensor, factor: Tensor, bits: int, group_size: int, stored: torch.dtype, *, symmetric: bool, order: Tensor | None = None
) -> Rounded:
    """Round `weight` to `bits` bits: Frantar et al. 2022, arXiv 2210.17323, algorithm 1.

    A group's grid is set when its first column is reached, from weights with all corrections so far. With an `order` the grids are set
    before, from the original weights ("static groups"), so that the checkpoint needs no group index.

    Args:
        weight: (rows, columns), `group_size` dividing the columns.
        factor: `inverse_factor` of the inputs, (columns, columns), permuted by `order` if there is one.
        stored: dtype in which scales are stored.
        order: column indices in the order of rounding (largest activations first).
    """
    rows, columns = weight.shape
    scale = torch.empty(columns // group_size, rows, device=weight.device)
    grids = Grid(scale, torch.empty_like(scale))
    if order is not None:
        static_grid = grid_of(weight.float().reshape(-1, group_size), bits, stored, symmetric=symmetric)
        for part, values in zip(grids, static_grid, strict=True):
            part.copy_(values.view(rows, -1).T)
    feedback = ErrorFeedback(weight if order is None else weight[:, order], factor)
    del weight
    target_columns = range(columns) if order is None else order.tolist()
    codes = torch.empty(columns, rows, dtype=torch.uint8, device=factor.device)
    for column, target_column in enumerate(target_columns):
        group = target_column // group_size
        if order is None and target_column % group_size == 0:
            group_grid = grid_of(feedback.columns(target_column, target_column + group_size).T, bits, stored, symmetric=symmetric)
            grids.scale[group], grids.zero[group] = group_grid.scale[:, 0], group_grid.zero[:, 0]
        grid = Grid(grids.scale[group], grids.zero[group])
        current = feedback.column(column)
        code = grid.codes(current, bits)
        codes[target_column] = code
        feedback.settle(column, current, grid.weight(code))
    return Rounded(codes.T.contiguous(), Grid(grids.scale.T.contiguous(), grids.zero.T.contiguous()))
