"""Selection of the weights of a matrix to drop, by their importance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ComparedWithin = Literal["layer", "row"]


def kept_mask(importance: Tensor, sparsity: float, among: ComparedWithin) -> Tensor:
    """True for the weights to keep; the share `sparsity` with the lowest importance is dropped.

    Args:
        importance: (rows, columns).
        among: weights are compared within their "row" (Wanda) or within the whole "layer" (magnitude). Exactly floor(sparsity * n) of n
            weights of a row or layer are dropped; of equal ones the first.
    """
    scores = importance if among == "row" else importance.reshape(1, -1)
    dropped = int(sparsity * scores.shape[1])
    if dropped == 0:
        return torch.ones_like(importance, dtype=torch.bool)
    # Selecting the threshold takes a third of the time of sorting.
    threshold = scores.kthvalue(dropped, dim=1, keepdim=True).values
    below, equal = scores < threshold, scores == threshold
    remaining = dropped - below.sum(1, keepdim=True)
    if not torch.equal(equal.sum(1, keepdim=True), remaining):
        equal &= equal.cumsum(1) <= remaining
    return ~(below | equal).reshape(importance.shape)


def kept_of_each(importance: Tensor, keep: int, of: int) -> Tensor:
    """True for the `keep` most important weights of each `of` neighbours in a row. Sparse tensor cores support 2 of 4.

    Args:
        importance: (rows, columns), `of` dividing the columns.
    """
    groups = importance.reshape(importance.shape[0], -1, of)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(2, groups.argsort(dim=2, descending=True, stable=True)[:, :, :keep], value=True)
    return mask.reshape(importance.shape)
