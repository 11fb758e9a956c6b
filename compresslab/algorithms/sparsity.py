"""Which weights of a matrix to drop, given how much each matters."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Among = Literal["layer", "row"]


def kept_mask(importance: Tensor, sparsity: float, among: Among) -> Tensor:
    """True for the weights that stay: the share `sparsity` of least importance goes.

    Args:
        importance: (rows, columns).
        among: weights compete within their "row" (Wanda) or within the whole "layer" (magnitude). Of a row or layer of n weights exactly
            floor(sparsity * n) go; of equals the first ones in order.
    """
    scores = importance if among == "row" else importance.reshape(1, -1)
    dropped = int(sparsity * scores.shape[1])
    if dropped == 0:
        return torch.ones_like(importance, dtype=torch.bool)
    # Selecting the threshold takes a third of the time of sorting.
    threshold = scores.kthvalue(dropped, dim=1, keepdim=True).values
    below, equal = scores < threshold, scores == threshold
    room = dropped - below.sum(1, keepdim=True)
    if not torch.equal(equal.sum(1, keepdim=True), room):
        equal &= equal.cumsum(1) <= room
    return ~(below | equal).reshape(importance.shape)


def kept_of_each(importance: Tensor, keep: int, of: int) -> Tensor:
    """True for the `keep` most important weights of each `of` neighbours in a row: 2 of 4 is what sparse tensor cores run.

    Args:
        importance: (rows, columns), `of` dividing the columns.
    """
    groups = importance.reshape(importance.shape[0], -1, of)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(2, groups.argsort(dim=2, descending=True, stable=True)[:, :, :keep], value=True)
    return mask.reshape(importance.shape)
