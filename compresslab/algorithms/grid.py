"""Quantization grids: the scale and zero point of a group of weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The smallest scale as a share of the smallest normal number. It has enough digits, and 8 bits of small weights need such scales.
SUBNORMAL = 2.0**-6


class Grid(NamedTuple):
    """Levels w = scale * (code - zero) with codes 0 .. 2^bits - 1; both of one shape, in float32."""

    scale: Tensor
    zero: Tensor

    def codes(self, weight: Tensor, bits: int) -> Tensor:
        """The nearest levels' codes, in float32."""
        return (weight / self.scale + self.zero).round_().clamp_(0, 2**bits - 1)

    def weight(self, codes: Tensor) -> Tensor:
        """The weights of the codes."""
        return (codes - self.zero) * self.scale


def grid_of(weight: Tensor, bits: int, stored: torch.dtype, *, symmetric: bool) -> Grid:
    """The grid from the smallest to the largest weight of each row, with zero as one of the levels; (rows, 1) each.

    Args:
        weight: (rows, group size) in float32.
        stored: dtype in which the scale is stored; the scale is rounded to it before weights are rounded to the grid.
        symmetric: zero is the middle code, and the range is that of the largest magnitude. Otherwise zero lies between the codes 1 and
            2^bits - 1, because GPTQ checkpoints store it minus one.
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
