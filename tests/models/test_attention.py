"""A model's attention is replaced for a while, and is its own again afterwards, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from compresslab.models.attention import attention_replaced
from models.tiny import make_model

IDS = torch.tensor([[1, 2, 3, 4]])


def test_a_function_of_ours_computes_attention_until_the_end() -> None:
    masks: list[Any] = []

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any) -> tuple[Tensor, None]:
        masks.append(attention_mask)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **others)[0], None

    model = make_model(dtype=torch.float32)
    with torch.no_grad():
        expected = model(IDS).logits
        with attention_replaced(model, "a_test", attend):
            assert torch.equal(model(IDS).logits, expected)
        layers = len(masks)
        assert torch.equal(model(IDS).logits, expected)
    assert masks == [None] * model.config.num_hidden_layers  # as for the SDPA kernel, which needs none for a causal model
    assert len(masks) == layers


def test_an_error_leaves_the_model_with_its_own_attention() -> None:
    model = make_model(dtype=torch.float32)
    with pytest.raises(ValueError, match="You must specify"), attention_replaced(model, "eager"):
        model()
    assert model.config._attn_implementation == "sdpa"
