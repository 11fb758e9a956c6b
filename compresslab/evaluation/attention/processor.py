"""Torch's fused attention kernel for processors. It returns the log-sum-exp of the scores, so that attention can be computed in parts."""

from __future__ import annotations

import torch
from torch import Tensor

PartialAttention = tuple[Tensor, Tensor]
"""Attention over some of the keys (..., queries, dim), and the log-sum-exp of their scores (..., queries) in float32."""


def fused(query: Tensor, key: Tensor, value: Tensor, scale: float, added: Tensor | None = None) -> PartialAttention:
    """Attention of (batch, heads, queries, dim) to (batch, heads, keys, dim). The tensors need not be contiguous.

    Args:
        added: mask to add to the scores, (batch or 1, heads or 1, queries, keys), of the queries' dtype or float32.
    """
    output, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=added, scale=scale)
    return output, weight


def combined(near: PartialAttention, far: PartialAttention) -> Tensor:
    """Attention over the keys of both parts, in float32. It is exact, since a softmax over both sets weights them by their sums."""
    share = (near[1] - far[1]).sigmoid_()[..., None]
    return torch.lerp(far[0].float(), near[0].float(), share)
