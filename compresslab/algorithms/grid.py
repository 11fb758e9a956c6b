"""The levels that a group of weights may take: scale and zero point."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Scales below the smallest normal number keep enough digits down to this share of it, and 8 bits of small weights need them.
SUBNORMAL = 2.0**-6


class Grid(NamedTuple):
    """Levels w = scale * (code - zero) with codes 0 .. 2^bits - 1; both of one shape, in float32."""

    scale: Tensor
    zero: Tensor

    def codes(self, weight: Tensor, bits: int) -> Tensor:
        """The nearest levels' codes, in float32."""
        return (weight / self.scale + self.zero).round_().clamp_(0, 2**bits - 1)

    def weight(self, codes: Tensor) -> Tensor:
        """What the codes stand for."""
        return (codes - self.zero) * self.scale


def grid_of(weight: Tensor, bits: int, stored: torch.dtype, *, symmetric: bool) -> Grid:
    """From the least to the largest weight of each row of a group, zero always among the levels; (rows, 1) each.

    Args:
        weight: (rows, group size) in float32.
        stored: dtype in which the scale will be stored; it is rounded to it here, before any weight is put on the grid.
        symmetric: zero is the middle code, and the levels reach as far as the largest magnitude. Else zero lies between the codes 1 and
            2^bits - 1: GPTQ checkpoints store it less one.
    """
    top = 2**bits - 1
    low, high = weight.amin(1, keepdim=True).clamp(max=0), weight.amax(1, keepdim=True).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = low == high
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    scale = ((high - low) / top).clamp(min=torch.finfo(stored).tiny * SUBNORMAL).to(stored).float()
    zero = torch.full_like(scale, (top + 1) // 2) if symmetric else (-low / scale).round().clamp(1, top)
    return Grid(scale, zero)
