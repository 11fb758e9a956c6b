"""Whether files hold all tensors of the model that is made of them, and the model has a place for theirs."""

from __future__ import annotations

from typing import Any

from compresslab.errors import BadInput
from compresslab.recipe.stored_weights import layer_of

# Buffers that older versions of transformers saved: masks and rotary frequencies, and scales of a cache that vLLM adds.
OLD_BUFFERS = (
    *("inv_freq", "cos_cached", "sin_cached"),
    *(".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".causal_mask", ".embed_positions"),
    *("k_scale", "v_scale", "kv_scale", "q_scale", "prob_output_scale"),
)


def check_complete(name: str, found: dict[str, Any], advice: str = "") -> None:
    """Refuse files that lack a part of the model. transformers only warns and fills that part with random numbers.

    Args:
        advice: what to do about missing parts, as the end of the message.
    """
    if mismatched := sorted(found["mismatched_keys"]):
        tensor, stored, expected = mismatched[0]
        raise BadInput(f"{name}: {tensor} is stored as {tuple(stored)}, but its configuration makes it {tuple(expected)}")
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(f"{name}: its weights lack {missing[0]}{more}, which its configuration asks for; the model is incomplete{advice}")


def check_unread(name: str, found: dict[str, Any], layers: int) -> None:
    """Refuse weights with tensors in decoder layers for which the model has no place: transformers passes over them with a warning.

    The model would be another than the one that was trained, such as Qwen 2 without its biases under the architecture of Llama, or a
    model without the adapters that were saved in it. Layers beyond the configuration's, and tensors outside of layers, are parts that are
    known to be left out (heads for several tokens, other modalities).

    Args:
        found: transformers' loading info. layers: the number of decoder layers.
    """
    unread = sorted(
        tensor
        for tensor in found["unexpected_keys"]
        if (number := layer_of(tensor)) is not None and number < layers and not tensor.endswith(OLD_BUFFERS)
    )
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        adapted = "lora_" in unread[0]
        advice = "merge the adapter with peft's merge_and_unload" if adapted else "give the model with its own config.json"
        raise BadInput(
            f"{name}: its weights have {unread[0]}{more}, for which the model of its configuration has no place, so it would be another "
            f"model; {advice}"
        )
