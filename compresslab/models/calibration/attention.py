"""Attention that returns the weights of some queries. Fused kernels return no weights, and the eager implementation is slow."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from compresslab.models.attention import attention_replaced

NAME = "compresslab_recorded"
# Every eighth query is recorded. With about ten heads, that is about one row of weights per token.
EVERY = 8


def recorded_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """A context in which attention modules also return the weights (batch, heads, recorded queries, positions).

    A model whose kernel is not SDPA (Gemma 2 caps its scores) uses the eager one, which returns all queries; see `recorded_rows`.
    """
    if model.config._attn_implementation == "sdpa":
        return attention_replaced(model, NAME, _sdpa_with_weights)
    return attention_replaced(model, "eager")


def recorded_rows(weights: Tensor, positions: int) -> Tensor:
    """The weights of the recorded queries, selected from `weights` if these cover all `positions` queries."""
    return weights[:, :, EVERY - 1 :: EVERY] if weights.shape[2] == positions else weights


def _sdpa_with_weights(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)[0]
    positions = query.shape[2]
    rows = torch.arange(EVERY - 1, positions, EVERY, device=query.device)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query[:, :, rows] @ repeat_kv(key, query.shape[1] // key.shape[1]).transpose(2, 3)).float() * scale
    if attention_mask is None:
        scores.masked_fill_(torch.arange(positions, device=query.device) > rows[:, None], -torch.inf)
    elif attention_mask.dtype == torch.bool:
        scores.masked_fill_(~attention_mask[:, :, rows], -torch.inf)
    else:
        scores += attention_mask[:, :, rows]
    return output, scores.softmax(-1)
