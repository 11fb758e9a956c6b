"""Replaces the attention of a model temporarily."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask


@contextlib.contextmanager
def attention_replaced(model: PreTrainedModel, name: str, attend: Callable[..., tuple[Tensor, Any]] | None = None) -> Iterator[None]:
    """A context in which the model computes attention with the implementation `name`.

    Args:
        attend: the function to register with transformers as `name`; it gets the same masks as the SDPA kernel. `None` if transformers
            knows `name`.
    """
    if attend is not None:
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, sdpa_mask)
    before = _implementations(model)
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)


def _implementations(model: PreTrainedModel) -> dict[str, str]:
    """The attention of each part of a model, as `set_attn_implementation` takes it: parts of multimodal models may differ."""
    parts = {name: part for name in model.config.sub_configs if (part := getattr(model.config, name, None)) is not None}
    # Of a part that is no model (the settings of MPT's attention) there is none.
    stated = {name: part._attn_implementation for name, part in parts.items() if part._attn_implementation is not None}
    return {"": model.config._attn_implementation, **stated}
