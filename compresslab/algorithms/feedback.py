"""Column by column quantization or pruning, with the error of each column compensated in the later columns."""

from __future__ import annotations

import torch
from torch import Tensor

# Columns between two products with all errors so far. Larger blocks leave the cache, smaller ones make the product inefficient.
BLOCK = 64


class ErrorFeedback:
    """The weights of a linear layer, corrected for the errors of the settled columns: Optimal Brain Surgeon's update, column by column
    (Frantar et al. 2022, "GPTQ", arXiv 2210.17323, section 3.3).

    The corrections of a column are summed when the column is reached, instead of updating all later columns: half the memory traffic of
    the paper's algorithm with equal arithmetic. Weights are stored column by column, so that a column is contiguous in memory.

    Attributes:
        weight: (columns, rows), the original weights in float32. errors: (columns, rows), of settled columns, over their curvature.
    """

    def __init__(self, weight: Tensor, factor: Tensor) -> None:
        """Take a weight (rows, columns) and the `inverse_factor` (columns, columns) of its inputs."""
        self.weight = weight.float().T.contiguous()
        self.errors = torch.zeros_like(self.weight)
        self._lower = factor.T.contiguous()
        self._curvature = factor.diagonal().tolist()
        self._start = 0
        self._block = self.weight[:BLOCK]

    def columns(self, start: int, end: int) -> Tensor:
        """Columns from `start`, the first unsettled one, to `end` with all corrections so far: (end - start, rows)."""
        return self.weight[start:end] - self._lower[start:end, :start] @ self.errors[:start]

    def column(self, number: int) -> Tensor:
        """Column `number`, the first unsettled one, with all corrections so far: (rows,)."""
        if number % BLOCK == 0:
            self._start = number
            self._block = self.columns(number, number + BLOCK)
        start = self._start
        if number == start:
            return self._block[0]
        return torch.addmv(self._block[number - start], self.errors[start:number].T, self._lower[number, start:number], alpha=-1)

    def settle(self, number: int, current: Tensor, settled: Tensor) -> None:
        """Replace column `number`, whose value is `current`, by `settled`, both (rows,)."""
        torch.sub(current, settled, out=self.errors[number])
        self.errors[number] /= self._curvature[number]
