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
    mask = torch.ones_like(scores, dtype=torch.bool)
    mask.scatter_(1, scores.argsort(dim=1, stable=True)[:, :dropped], value=False)
    return mask.reshape(importance.shape)


def kept_of_each(importance: Tensor, keep: int, of: int) -> Tensor:
    """True for the `keep` most important weights of each `of` neighbours in a row: 2 of 4 is what sparse tensor cores run.

    Args:
        importance: (rows, columns), `of` dividing the columns.
    """
    groups = importance.reshape(importance.shape[0], -1, of)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(2, groups.argsort(dim=2, descending=True, stable=True)[:, :, :keep], value=True)
    return mask.reshape(importance.shape)
