"""Where a tree of token sequences can be computed exactly: which architectures, and behind which attention windows."""

from __future__ import annotations

from transformers import PretrainedConfig

# Architectures for which the tests show that tree and plain give the same log-likelihoods: attention is the only way
# from one position to another, it takes a 4-D mask as it is, and positions are read from `position_ids`.
ARCHITECTURES = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt_neox", "llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
)


def obstacle(config: PretrainedConfig) -> str:
    """Why a tree mask is not exact for a model of `config`; empty if it is."""
    text = config.get_text_config()
    if text.model_type not in ARCHITECTURES:
        return f"no test shows that a tree mask is exact for the architecture {text.model_type}"
    if text._attn_implementation not in ("sdpa", "eager"):
        return f"the attention implementation {text._attn_implementation} takes no mask of its own"
    if _varies_with_length(getattr(text, "rope_parameters", None)):
        return "its rotary embedding depends on the length of the whole input"
    if other := set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return f"it has layers of kind {', '.join(sorted(other))}"
    return ""


def outgrown_window(config: PretrainedConfig, longest: int) -> int | None:
    """The attention window in positions, if a sequence of `longest` tokens outgrows one; a window that none outgrows hides nothing."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    # Without `layer_types`, a window set is a window used by every layer.
    window: int | None = getattr(text, "sliding_window", None) if not kinds or "sliding_attention" in kinds else None
    return window if window is not None and longest > window else None


def _varies_with_length(rope: object) -> bool:
    if not isinstance(rope, dict):
        return False
    return rope.get("rope_type") in ("dynamic", "longrope") or any(_varies_with_length(inner) for inner in rope.values())
