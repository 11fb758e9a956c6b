"""SparseGPT: drop weights, and let the ones that stay make good for them."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.algorithms.sparsity import kept_mask, kept_of_each

BLOCK = 128


def sparsegpt(weight: Tensor, factor: Tensor, sparsity: float, pattern: tuple[int, int] | None = None) -> Tensor:
    """The pruned weight, (rows, columns) in float32: Frantar and Alistarh 2023, "SparseGPT", arXiv 2301.00774, algorithm 1.

    Columns are visited left to right; which weights of a block of `BLOCK` columns go is decided when the block is reached, by
    w^2 / U_jj^2 with all updates so far, and each dropped weight's error is spread over the columns right of it.

    Args:
        weight: (rows, columns).
        factor: `inverse_factor` of the inputs, (columns, columns).
        sparsity: share of weights to drop in each block.
        pattern: (keep, of) to keep `keep` of each `of` neighbours instead; `of` divides `BLOCK` and the columns.
    """
    work = weight.float().clone()
    columns = work.shape[1]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        block, corner = work[:, start:end], factor[start:end, start:end]
        errors = torch.zeros_like(block)
        if pattern is None:
            kept = kept_mask(_saliency(block, corner.diagonal()), sparsity, "layer")
        else:
            kept = torch.ones_like(block, dtype=torch.bool)
        for column in range(end - start):
            if pattern is not None and column % pattern[1] == 0:
                group = slice(column, column + pattern[1])
                kept[:, group] = kept_of_each(_saliency(block[:, group], corner.diagonal()[group]), *pattern)
            old = block[:, column].clone()
            new = torch.where(kept[:, column], old, 0.0)
            errors[:, column] = (old - new) / corner[column, column]
            block[:, column:] -= errors[:, column, None] * corner[None, column, column:]
            block[:, column] = new
        work[:, end:] -= errors @ factor[start:end, end:]
    return work


def _saliency(weight: Tensor, diagonal: Tensor) -> Tensor:
    return (weight / diagonal).square()
