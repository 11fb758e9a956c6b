"""The architectures and attention windows for which engines are exact."""

from __future__ import annotations

from transformers import PretrainedConfig

# Architectures for which tests show that tree and plain compute the same log-likelihoods: positions influence each other through attention
# only, attention applies a given 4-D mask, and positions are read from `position_ids`.
TREE_MASK_ARCHITECTURES = frozenset(
    {
        *("cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "granite", "llama", "mistral"),
        *("mixtral", "olmo2", "olmo3", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "starcoder2"),
    }
)

# Other architectures, for which tests show that continuing from a copy of the cache with several tokens is equal to reading all at once.
# It is not for mamba, falcon_mamba and jamba, whose scans transformers 5.23 restarts without an error, nor for bamba.
CACHE_COPY_ARCHITECTURES = frozenset(
    {"falcon", "falcon_h1", "granitemoehybrid", "lfm2", "mamba2", "olmo_hybrid", "qwen3_5_text", "qwen3_next"}
)

LENGTH_DEPENDENT = "its rotary embedding depends on the length of the whole input"


def why_no_tree_mask(config: PretrainedConfig) -> str:
    """Why a tree mask is not exact for a model of `config`; empty if it is."""
    text = config.get_text_config()
    if text.model_type not in TREE_MASK_ARCHITECTURES:
        return f"no test shows that a tree mask is exact for the architecture {text.model_type}"
    if text._attn_implementation not in ("sdpa", "eager"):
        return f"the attention implementation {text._attn_implementation} takes no mask of its own"
    if _varies_with_length(getattr(text, "rope_parameters", None)):
        return LENGTH_DEPENDENT
    if other := set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return f"it has layers of kind {', '.join(sorted(other))}"
    return ""


def why_no_cache_copy(config: PretrainedConfig) -> str:
    """Why continuing from a copy of its cache is not exact for a model of `config`; empty if it is."""
    text = config.get_text_config()
    if text.model_type not in CACHE_COPY_ARCHITECTURES:
        return f"no test shows that continuing from a copied cache is exact for the architecture {text.model_type}"
    return LENGTH_DEPENDENT if _varies_with_length(getattr(text, "rope_parameters", None)) else ""


def outgrown_window(config: PretrainedConfig, longest: int) -> int | None:
    """The attention window in positions if a sequence of `longest` tokens is longer than it, else `None`."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    # Without `layer_types`, every layer uses the window.
    window: int | None = getattr(text, "sliding_window", None) if not kinds or "sliding_attention" in kinds else None
    return window if window is not None and longest > window else None


def _varies_with_length(rope: object) -> bool:
    if not isinstance(rope, dict):
        return False
    return rope.get("rope_type") in ("dynamic", "longrope") or any(_varies_with_length(inner) for inner in rope.values())
