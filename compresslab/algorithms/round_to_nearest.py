"""Round-to-nearest quantization: the baseline of the other methods."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_scales(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """Scales, (rows, columns / group_size) in the weight's dtype: max |w| of a group over the largest level.

    A weight is stored as round(w / scale), a signed integer of `bits` bits. A group of zeros gets scale 1 to avoid a
    division by zero. A tiny group in float16 gets the smallest normal number, because a smaller scale would be rounded
    to zero or too coarsely for the group's largest weight.

    Args:
        weight: (rows, columns), `group_size` dividing the columns.
    """
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    scales = groups.abs().amax(-1) / (2 ** (bits - 1) - 1)
    smallest = torch.finfo(weight.dtype).tiny
    return torch.where(scales == 0, torch.ones_like(scales), scales.clamp(min=smallest)).to(weight.dtype)
