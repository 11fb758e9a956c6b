"""What a token leaves in the cache: counts by hand of published models, and what transformers keeps of tiny ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedConfig

from compresslab.catalog.hardware import load_hardware
from compresslab.catalog.published_shapes import dimensions, size_and_shape
from compresslab.density import Hardware, seconds
from compresslab.models.counting.attention_layers import attention_layers
from compresslab.recipe.schema import Workload
from compresslab.records import AttentionLayers, Shape, Size
from models.tiny import COMMON, GROUPED


def of(kind: str, **settings: Any) -> tuple[PreTrainedConfig, tuple[AttentionLayers, ...]]:
    config = AutoConfig.for_model(kind, **settings).get_text_config()
    return config, attention_layers(config)


def kept_bytes(layers: tuple[AttentionLayers, ...]) -> int:
    """Bytes at 16 bits of one token in all layers."""
    return sum(2 * kind.layers * kind.kept for kind in layers)


def test_deepseek_v3_keeps_a_latent_vector_and_a_rotary_key_in_each_layer():
    _, layers = of("deepseek_v3")
    assert kept_bytes(layers) == 61 * (512 + 64) * 2 == 70_272
    (kind,) = layers
    assert kind.prefill_width == 128 * (128 + 64 + 128)
    assert kind.decode_width == 128 * (512 + 64 + 512)


def test_qwen3_next_keeps_keys_and_values_in_12_of_48_layers_and_a_state_in_the_others():
    _, layers = of("qwen3_next")
    linear, full = layers
    assert (linear.layers, linear.kept, full.layers) == (36, 0, 12)
    assert kept_bytes(layers) == 12 * 2 * 2 * 256 * 2 == 24_576
    assert linear.state == 32 * 128 * 128 + (2 * 16 * 128 + 32 * 128) * 4


def test_gemma_3n_keeps_nothing_in_the_15_layers_that_read_others_but_reads_them():
    _, layers = of("gemma3n_text")
    by_use = {(kind.window, kind.kept > 0): kind.layers for kind in layers}
    assert by_use == {(512, True): 16, (0, True): 4, (512, False): 12, (0, False): 3}
    assert {kind.read for kind in layers} == {2 * 2 * 256}


def test_gemma_4_has_other_heads_in_its_layers_without_a_window():
    config, layers = of("gemma4_text", num_hidden_layers=12, global_head_dim=512, head_dim=256, num_key_value_heads=2)
    assert {(kind.window, kind.kept, kind.layers) for kind in layers} == {(config.sliding_window, 1024, 10), (0, 2048, 2)}


@pytest.mark.parametrize(
    ("kind", "settings", "windows"),
    [
        ("llama", {}, {0: 32}),
        ("mistral", {}, {4096: 32}),
        ("gemma2", {}, {4096: 13, 0: 13}),
        ("gpt_oss", {}, {128: 18, 0: 18}),
        ("llama4_text", {}, {8192: 36, 0: 12}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 24}, {0: 24, 8: 8}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8}, {0: 32}),
    ],
)
def test_windows_are_those_of_the_layers(kind: str, settings: dict[str, Any], windows: dict[int, int]):
    assert {one.window: one.layers for one in of(kind, **settings)[1]} == windows


LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 16}
LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "moe_intermediate_size": 32,
}
HYBRIDS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        **LATENT,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
    },
    "qwen3_next": {**GROUPED, **LINEAR, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "kimi_linear": {
        **LATENT,
        "head_dim": 8,
        "intermediate_size": 128,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_head_dim": 16,
        "linear_num_heads": 2,
        "num_experts": 4,
        "num_experts_per_token": 2,
    },
    "mamba": {"state_size": 8},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention", "conv", "full_attention"], "block_multiple_of": 32},
    "falcon_h1": {**GROUPED, "head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "gemma3_text": {**GROUPED, "head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 3},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 2},
    "zamba2": {**GROUPED, "mamba_d_state": 8, "n_mamba_heads": 8, "num_mem_blocks": 1, "layers_block_type": ["mamba", "hybrid"] * 2},
    "jamba": {**GROUPED, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "num_experts": 2, "use_mamba_kernels": False},
    "falcon": {"multi_query": True, "new_decoder_architecture": False},
    "nemotron_h": {**GROUPED, "head_dim": 16, "ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2},
    "granitemoehybrid": {**GROUPED, "mamba_d_state": 8, "mamba_n_heads": 8, "layer_types": ["mamba", "attention"] * 2},
}


@pytest.mark.parametrize("kind", HYBRIDS)
def test_what_is_counted_is_what_transformers_keeps(kind: str):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**COMMON, **HYBRIDS[kind]})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.arange(2, 7)[None], use_cache=True)
    cache = getattr(cache, "cache", None) or getattr(cache, "cache_params", None) or cache.past_key_values
    assert isinstance(cache, DynamicCache)
    kept = states = 0
    for layer in cache.layers:
        for name in ("keys", "values"):
            value = getattr(layer, name, None)
            kept += value.numel() // value.shape[-2] if value is not None else 0  # (1, heads, positions, dimensions)
        for name in ("recurrent_states", "conv_states"):
            value = getattr(layer, name, None)
            for one in [value] if isinstance(value, torch.Tensor) else value.values() if isinstance(value, dict) else value or ():
                states += one.numel() if isinstance(one, torch.Tensor) else 0
    assert sum(one.layers * one.kept for one in attention_layers(config)) == kept
    assert sum(one.layers * one.state for one in attention_layers(config)) == states


def test_layers_with_a_window_and_linear_ones_take_less_time_on_long_texts():
    reader = Hardware(name="reader", flops=1e30, bandwidth=2.0, source="one feature of 16 bits a second")
    size = Size(parameters=1, counted=1, active=1, nonzero=1, stored_bytes=2, effective_bits=16)
    shape = Shape(architecture="x", layers=4, hidden=1, intermediate=1, attention_width=1, key_value_width=3, vocabulary=1)
    workload = Workload(batch=1, prompt=100, decode=2)

    def features(*layers: AttentionLayers) -> float:
        return seconds(shape.model_copy(update={"attention": layers}), size, reader, workload) - 3 * size.counted

    full = AttentionLayers(layers=4, kept=6, read=6)
    # The prompt is written once; the two new tokens attend to 101 and 102 tokens, and are written.
    assert features(full) == pytest.approx(4 * 6 * (100 + 101 + 102 + 2)) == features()
    assert features(full.model_copy(update={"window": 10})) == pytest.approx(4 * 6 * (100 + 10 + 10 + 2))
    assert features(full.model_copy(update={"kept": 0})) == pytest.approx(4 * 6 * (101 + 102))
    assert features(AttentionLayers(layers=4, state=7)) == pytest.approx(4 * 7 * (1 + 2 * 2))


def test_rwkv_keeps_five_vectors_a_layer():
    config = AutoConfig.for_model("rwkv", hidden_size=64, num_hidden_layers=3, attention_hidden_size=96)
    assert attention_layers(config) == (AttentionLayers(layers=3, state=2 * 64 + 3 * 96),)


@pytest.mark.parametrize("name", ["Gemma-2-2B", "Gemma-2-9B", "Gemma-2-27B", "Qwen2.5-7B"])
def test_published_models_keep_what_the_config_of_their_architecture_says(name: str):
    size, shape = size_and_shape(name)
    config = AutoConfig.for_model(
        shape.architecture,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        head_dim=int(dimensions()[name]["head_dim"]),
        num_attention_heads=int(dimensions()[name]["heads"]),
        num_key_value_heads=int(dimensions()[name]["kv_heads"]),
    )
    full = AttentionLayers(
        layers=shape.layers,
        kept=2 * shape.key_value_width,
        read=2 * shape.key_value_width,
        prefill_width=2 * shape.attention_width,
        decode_width=2 * shape.attention_width,
    )
    assert (shape.attention or (full,)) == attention_layers(config)
    without = shape.model_copy(update={"attention": ()})
    for prompt in (512, 16_384):
        workload = Workload(batch=8, prompt=prompt, decode=128)
        with_windows, all_full = (seconds(one, size, load_hardware("h100-sxm"), workload) for one in (shape, without))
        if prompt == 512 or not shape.attention:
            assert with_windows == pytest.approx(all_full, rel=1e-12)
        else:
            assert with_windows < all_full
