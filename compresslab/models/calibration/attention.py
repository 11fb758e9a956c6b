"""Attention that tells who attends to whom, for some of the queries: the fused kernels keep it to themselves, the eager one is slow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "compresslab_telling"
# Of the queries every eighth is asked: with some ten heads that is as many answers as there are tokens.
EVERY = 8


@contextlib.contextmanager
def recorded_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let attention modules give back, beside their output, the weights (batch, heads, queries asked, positions).

    A model that attends by the eager kernel (Gemma 2 caps its scores) goes on so and gives back those of all queries: see `asked`.
    """
    before = model.config._attn_implementation
    if before == "sdpa":
        AttentionInterface.register(NAME, _telling)
        AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME if before == "sdpa" else "eager")
        yield
    finally:
        model.set_attn_implementation(before)


def asked(weights: Tensor, positions: int) -> Tensor:
    """The weights of the queries that are asked, of those of all `positions` queries or of these alone."""
    return weights[:, :, EVERY - 1 :: EVERY] if weights.shape[2] == positions else weights


def _telling(
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
