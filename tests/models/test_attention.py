"""A model's attention is replaced temporarily and restored afterwards, also after an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration
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


def test_parts_of_a_multimodal_model_get_back_what_each_had() -> None:
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                       "num_attention_heads": 2, "image_size": 8, "patch_size": 4, "projection_dim": 16},
        text_config={"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "vocab_size": 64},
        image_token_index=63,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "eager"})
    with attention_replaced(model, "eager"):
        assert model.config.text_config._attn_implementation == "eager"
    assert model.config.text_config._attn_implementation == "sdpa"
    assert model.config.vision_config._attn_implementation == "eager"


def test_an_error_leaves_the_model_with_its_own_attention() -> None:
    model = make_model(dtype=torch.float32)
    with pytest.raises(ValueError, match="You must specify"), attention_replaced(model, "eager"):
        model()
    assert model.config._attn_implementation == "sdpa"
