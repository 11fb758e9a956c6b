"""Replacing the attention of a model for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask


@contextlib.contextmanager
def attention_replaced(model: PreTrainedModel, name: str, attend: Callable[..., tuple[Tensor, Any]] | None = None) -> Iterator[None]:
    """Let the model compute attention by the implementation `name`, and afterwards by its own again.

    Args:
        attend: is registered with transformers as `name` and gets the masks that the SDPA kernel would get. None: transformers has `name`.
    """
    if attend is not None:
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, sdpa_mask)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)
