"""AdamW with states of 32 or 8 bits, and what a checkpoint keeps of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compresslab.methods.settings import Optimizer

BETAS = (0.9, 0.95)
# The tables that bitsandbytes reads codes with. They are the same in every state.
TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}


def adamw(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    """AdamW for parameter groups.

    With `state_bits: 8` each moment is a code of 8 bits, with a scale for each block of 256 weights. Tensors of fewer than 4,096 weights
    keep moments of 32 bits. Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861, as bitsandbytes
    implements it.
    """
    if settings.state_bits == 8:
        from bitsandbytes.optim import AdamW8bit

        eight_bits: torch.optim.Optimizer = AdamW8bit(groups, lr=settings.learning_rate, betas=BETAS)
        return eight_bits
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, fused=True)


def saved(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """What the optimizer holds of a weight and changes from step to step."""
    return {name: torch.as_tensor(value) for name, value in optimizer.state[weight].items() if name not in TABLES}


def restored(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The optimizer's state of a weight, from what was `saved` of it."""
    if not hasattr(optimizer, "name2qmap"):
        return dict(tensors)
    # bitsandbytes counts steps in an int.
    state = {name: int(value) if name == "step" else value for name, value in tensors.items()}
    return state | ({name: optimizer.name2qmap[table] for name, table in TABLES.items()} if "absmax1" in state else {})
