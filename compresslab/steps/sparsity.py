"""Zeros that pruning has set and that training must keep."""

from __future__ import annotations

from torch import nn

# Share of zeros from which on a linear layer counts as pruned.
SPARSE = 0.05


def is_sparse(module: nn.Module) -> bool:
    """Whether pruning has set weights of a linear layer to zero, which training must keep so.

    A layer with fewer zeros than `SPARSE` was not pruned; a dense model in bfloat16 has next to none.
    """
    return type(module) is nn.Linear and SPARSE < float((module.weight == 0).float().mean()) < 1  # adapters start as nothing but zeros
