"""GPTQ: round weights one column after the other, and let the columns still to come make good for the error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.algorithms.feedback import Feedback
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

    A group's grid is set when its first column is reached, on weights that hold all corrections so far. With an `order` the grids are set
    beforehand on the original weights ("static groups"), so that the checkpoint needs no index of groups.

    Args:
        weight: (rows, columns), `group_size` dividing the columns.
        factor: `inverse_factor` of the inputs, (columns, columns), in `order` where there is one.
        stored: dtype in which scales are stored.
        order: column indices, the one visited first (largest activations) first.
    """
    rows, columns = weight.shape
    visited = weight if order is None else weight[:, order]
    feedback = Feedback(visited, factor)
    scale = torch.empty(columns // group_size, rows, device=weight.device)
    grids = Grid(scale, torch.empty_like(scale))
    if order is not None:
        whole = grid_of(weight.float().reshape(-1, group_size), bits, stored, symmetric=symmetric)
        for part, found in zip(grids, whole, strict=True):
            part.copy_(found.view(rows, -1).T)
    places = range(columns) if order is None else order.tolist()
    codes = torch.empty(columns, rows, dtype=torch.uint8, device=weight.device)
    for column, place in enumerate(places):
        group = place // group_size
        if order is None and place % group_size == 0:
            ahead = grid_of(feedback.columns(place, place + group_size).T, bits, stored, symmetric=symmetric)
            grids.scale[group], grids.zero[group] = ahead.scale[:, 0], ahead.zero[:, 0]
        grid = Grid(grids.scale[group], grids.zero[group])
        now = feedback.column(column)
        code = grid.codes(now, bits)
        codes[place] = code
        feedback.settle(column, now, grid.weight(code))
    return Rounded(codes.T.contiguous(), Grid(grids.scale.T.contiguous(), grids.zero.T.contiguous()))
