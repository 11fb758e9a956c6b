"""Putting an attention of ours in the place of a model's own kernel, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask


@contextlib.contextmanager
def attending(model: PreTrainedModel, name: str, attend: Callable[..., tuple[Tensor, Any]]) -> Iterator[None]:
    """Let the model attend by `attend`, registered with transformers as `name`; masks come as its SDPA kernel would get them."""
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)
