"""Columns of a weight settled one after the other, the error of each carried over to the columns still to come."""

from __future__ import annotations

import torch
from torch import Tensor

# Columns between two products with all errors so far: enough for the product to be worth it, few enough to stay in the cache.
BLOCK = 64


class Feedback:
    """The weights of a linear layer as the errors of the columns settled so far make them: Optimal Brain Surgeon's update, column by column
    (Frantar et al. 2022, "GPTQ", arXiv 2210.17323, section 3.3).

    What a column receives from those left of it is summed when the column is reached, and never written into columns to come: half the
    memory traffic of the paper's algorithm at equal arithmetic. Weights lie column by column, so that a column is one run of memory.

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
        """Columns from `start`, the first unsettled one, to `end`, as they are now: (end - start, rows)."""
        return self.weight[start:end] - self._lower[start:end, :start] @ self.errors[:start]

    def column(self, number: int) -> Tensor:
        """Column `number`, the first unsettled one, as it is now: (rows,)."""
        if number % BLOCK == 0:
            self._start = number
            self._block = self.columns(number, number + BLOCK)
        start = self._start
        if number == start:
            return self._block[0]
        return torch.addmv(self._block[number - start], self.errors[start:number].T, self._lower[number, start:number], alpha=-1)

    def settle(self, number: int, now: Tensor, settled: Tensor) -> None:
        """Fix column `number`, which is `now`, at `settled`, both (rows,)."""
        torch.sub(now, settled, out=self.errors[number])
        self.errors[number] /= self._curvature[number]
