"""SparseGPT: drops weights and compensates the error in the remaining ones."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.algorithms.feedback import ErrorFeedback
from compresslab.algorithms.sparsity import kept_mask, kept_of_each

BLOCK = 128


def sparsegpt(weight: Tensor, factor: Tensor, sparsity: float, pattern: tuple[int, int] | None = None) -> Tensor:
    """The pruned weight, (rows, columns) in float32: Frantar and Alistarh 2023, "SparseGPT", arXiv 2301.00774, algorithm 1.

    Columns are visited left to right. The weights to drop in a block of `BLOCK` columns are selected when the block is reached, by
    w^2 / U_jj^2 with all updates so far. The error of each dropped weight is compensated in the columns right of it.

    Args:
        weight: (rows, columns).
        factor: `inverse_factor` of the inputs, (columns, columns).
        sparsity: share of weights to drop in each block.
        pattern: (keep, of) keeps `keep` of each `of` neighbours instead; `of` divides the columns.
    """
    feedback = ErrorFeedback(weight, factor)
    columns = weight.shape[1]
    settled = torch.empty_like(feedback.weight)
    step = pattern[1] if pattern is not None else BLOCK
    for start in range(0, columns, step):
        end = min(start + step, columns)
        saliency = (feedback.columns(start, end).T / factor.diagonal()[start:end]).square()
        kept = kept_mask(saliency, sparsity, "layer") if pattern is None else kept_of_each(saliency, *pattern)
        for column, stays in enumerate(kept.T.contiguous(), start):
            current = feedback.column(column)
            torch.mul(current, stays, out=settled[column])
            feedback.settle(column, current, settled[column])
    return settled.T.contiguous()
