"""What the layers of a model keep of earlier tokens, from its config as transformers reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from transformers import PretrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from compresslab.records import AttentionLayers

SLIDING = ("sliding_attention", "chunked_attention", "hybrid_sliding", "reference_sliding_attention")
WITH_STATE = ("linear_attention", "conv", "hybrid", "hybrid_sliding")
WITHOUT_KEYS = ("linear_attention", "conv")


def attention_layers(config: PretrainedConfig) -> tuple[AttentionLayers, ...]:
    """The layers of a text model by what they keep, in the order of their first layer.

    Layers with a window keep its keys and values only, linear attention and state-space layers a state of constant size, and layers that
    read the keys and values of an earlier layer (Gemma 3n, Gemma 4) nothing. Multi-head latent attention keeps the latent vector and the
    rotary key (DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1).

    Args:
        config: of the text part.
    """
    kinds, settings = get_layer_types_and_kwargs(config)
    sharing = getattr(config, "kv_sharing_modes", None) or [None] * len(kinds)
    stated = getattr(config, "layer_types", None) or kinds
    found: Counter[AttentionLayers] = Counter()
    for number, kind in enumerate(kinds):
        reads_others = sharing[number] == "reuse"
        if kind == "dummy" and not reads_others:
            continue  # an MLP alone
        kind = stated[number] if reads_others else kind
        found[_of_layer(config.per_layer_config[number], kind, settings[number], shared=reads_others)] += 1
    return tuple(one.model_copy(update={"layers": number}) for one, number in found.items())


def _of_layer(layer: PretrainedConfig, kind: str, settings: dict[str, Any], *, shared: bool) -> AttentionLayers:
    window = (settings.get("sliding_window") or getattr(layer, "sliding_window", None) or 0) if kind in SLIDING else 0
    state = _state(layer) if kind in WITH_STATE else 0
    if kind in WITHOUT_KEYS:
        return AttentionLayers(layers=1, state=state)
    if (heads := getattr(layer, "num_attention_heads", None)) is None:
        # RWKV: the last inputs of both blocks, and two sums and a maximum of its time mixing.
        return AttentionLayers(layers=1, state=2 * layer.hidden_size + 3 * layer.attention_hidden_size)
    if (latent := getattr(layer, "kv_lora_rank", None)) is not None:
        rotary = layer.qk_rope_head_dim
        prefill = heads * (layer.qk_nope_head_dim + rotary + layer.v_head_dim)
        # While decoding, the projections from the latent vector are applied to queries and results instead of to all keys and values.
        kept, decode = latent + rotary, heads * (2 * latent + rotary)
    else:
        head = getattr(layer, "head_dim", None) or layer.hidden_size // heads
        # Falcon and StarCoder share one head of keys and values among all queries; the former's later architecture has groups.
        one = getattr(layer, "multi_query", False) and not getattr(layer, "new_decoder_architecture", False)
        kept = 2 * head * (1 if one else getattr(layer, "num_key_value_heads", None) or heads)
        prefill = decode = 2 * head * heads
    return AttentionLayers(
        layers=1, kept=0 if shared else kept, read=kept, prefill_width=prefill, decode_width=decode, window=window, state=state
    )


def _state(layer: PretrainedConfig) -> int:
    """Features of the state of a linear attention, a state-space model or a convolution, with the inputs that its convolution keeps."""

    def stated(*names: str) -> int:
        return next((int(value) for name in names if isinstance(value := getattr(layer, name, None), int | float) and value > 0), 0)

    # Gated delta networks (Qwen3-Next, Kimi Linear): a matrix a value head, and a convolution over keys, queries and values.
    keys, values = (stated(f"linear_num_{which}_heads", "linear_num_heads", "num_attention_heads") for which in ("key", "value"))
    key, value = (stated(f"linear_{which}_head_dim", "linear_head_dim") for which in ("key", "value"))
    if key and value:
        return values * key * value + (2 * keys * key + values * value) * stated("linear_conv_kernel_dim")
    # Mamba: a state a channel, and a convolution over the channels, in Mamba 2 over its inputs and outputs of each group, too.
    size, expand = stated("ssm_state_size", "state_size", "mamba_d_state"), stated("expand", "mamba_expand")
    if size:
        heads = stated("mamba_num_heads") * stated("mamba_head_dim")  # Nemotron-H, whose expansion is not read
        channels = stated("mamba_d_ssm", "mamba_intermediate_size") or heads or expand * layer.hidden_size
        convolved = channels + 2 * stated("n_groups", "mamba_n_groups", "mamba_ngroups") * size
        return channels * size + convolved * stated("conv_kernel", "mamba_d_conv", "conv_kernel_size")
    # Short convolutions (LFM2).
    if length := stated("conv_L_cache"):
        return int(layer.hidden_size) * length
    if width := stated("lru_width"):  # RecurrentGemma
        return width * (1 + stated("conv1d_width"))
    # Other linear attention, such as MiniMax's: a matrix a head.
    head = getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads
    return int(layer.num_attention_heads * head * head)
