"""N leaves out what is only looked up: counts by hand of published models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from compresslab.models.counting.lookups import lookups
from compresslab.models.counting.size import nonzero_of, shape_of, size_of
from compresslab.models.save import save
from models.tiny import COMMON, make


def skeleton(kind: str) -> PreTrainedModel:
    """The model of transformers' default config, that of a published one, without weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind))
    return model


@pytest.mark.parametrize(
    ("kind", "name", "by_hand"),
    [
        ("gpt2", "transformer.wpe.weight", 1024 * 768),
        ("opt", "model.decoder.embed_positions.weight", (2048 + 2) * 768),
        ("gemma3n_text", "model.embed_tokens_per_layer.weight", 262_144 * 256 * 35),
        ("gemma4_text", "model.embed_tokens_per_layer.weight", 262_144 * 256 * 30),
        ("llama", "model.embed_tokens.weight", 32_000 * 4096),
    ],
)
def test_tables_of_positions_and_of_layers_are_looked_up(kind: str, name: str, by_hand: int):
    assert lookups(skeleton(kind)) == {name: by_hand}


def test_a_table_that_the_head_multiplies_by_is_none():
    assert lookups(skeleton("gemma3_text")) == {}
    assert lookups(skeleton("bloom")) == {}


def test_n_of_gpt2_small_has_no_positions():
    model = skeleton("gpt2")
    layer = 4 * 768 * 768 + 8 * 768 * 768 + (3 + 1 + 4 + 1) * 768 + 4 * 768  # projections, their biases, two norms
    by_hand = 50_257 * 768 + 12 * layer + 2 * 768
    assert sum(parameter.numel() for parameter in model.parameters()) - sum(lookups(model).values()) == by_hand == 123_653_376


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gemma3n_text"])
def test_a_saved_model_counts_and_weighs_without_its_tables(tmp_path: Path, kind: str):
    settings = {**COMMON, "vocab_size_per_layer_input": 304, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "head_dim": 16}
    settings |= {"intermediate_size": 128, "word_embed_proj_dim": 64, "num_key_value_heads": 2, "laurel_rank": 8}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    config.layer_types = ["sliding_attention"] * 3 + ["full_attention"] if kind == "gemma3n_text" else None
    loaded = make()._replace(model=AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval())
    save(loaded, tmp_path)
    size = size_of(tmp_path, nonzero_of(loaded.model))
    table = {"gpt2": 256 * 64, "opt": (256 + 2) * 64, "gemma3n_text": 304 * 8 * 4}[kind]
    assert size.counted == size.parameters - table
    if kind != "gemma3n_text":  # whose config states a width for each MLP
        assert shape_of(tmp_path, size).weight_bits == 16
