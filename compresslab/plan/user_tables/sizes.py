"""The size of a model that is not run here: counted from the dimensions in its config.json, or as it is stated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compresslab.catalog.published_shapes import BF16, WeightStorage, counted_from
from compresslab.errors import BadInput
from compresslab.recipe.model_config import read_config, text_part, text_sizes
from compresslab.records import Shape, Size

COUNTED = ("gemma", "gemma2", "llama", "mistral", "phi3", "qwen2", "qwen3")
"""Architectures whose parameters `published_shapes.counted_from` counts as transformers does (`tests/plan/test_sizes_stated.py`)."""

UNKNOWN_SHAPE = "not stated"
"""The architecture of a model of which only the number of parameters is known. Its inference time cannot be modelled."""

QUANTIZED_NAME = re.compile(
    r"(?<![a-z0-9])(gptq|awq|gguf|exl[23]|hqq|aqlm|quip|bnb|(nf|fp|mxfp|nvfp|int)[2348]|fp6|[2-8][-_ ]?bits?|w[2348]a(8|16)"
    r"|i?q[2-8](_[a-z0-9_]+)?|bitnet)(?![a-z0-9])",
    re.IGNORECASE,
)
"""What a model's name says where its weights are stored in fewer than 16 bits."""

LEAST, LARGEST = 1e5, 1e14  # parameters
STATE = "state the number of its parameters instead"


def stated_size(parameters: float, bits: float = 16.0) -> tuple[Size, Shape]:
    """Size and shape of a model of which only the parameters that multiply activations and the bits of a weight are known.

    Raises:
        BadInput: a number that no model has.
    """
    if not (math.isfinite(parameters) and LEAST <= parameters <= LARGEST):
        raise BadInput(f"{parameters:g} is no number of parameters; write them in full, such as 1.2e9, not in millions or billions")
    _check_bits(bits)
    count = round(parameters)
    size = Size(
        parameters=count,
        counted=count,
        active=count,
        nonzero=count,
        stored_bytes=round(count * bits / 8),
        effective_bits=bits,
    )
    shape = Shape(
        architecture=UNKNOWN_SHAPE,
        layers=0,
        hidden=0,
        intermediate=0,
        attention_width=0,
        key_value_width=0,
        vocabulary=0,
        weight_bits=bits,
    )
    return size, shape


def _check_bits(bits: float) -> None:
    if not (math.isfinite(bits) and 0.5 <= bits <= 64):
        raise BadInput(f"{bits:g} bits a weight are not possible; write the stored bits of a weight, such as 16 or 4.25")


def quantization_in_name(name: str) -> str:
    """The part of a model's name that says that its weights take fewer than 16 bits; "" for none."""
    found = QUANTIZED_NAME.search(name)
    return found[0] if found else ""


def size_from_config(path: Path, bits: float | None = None, *, stated_by: str = "in the column bits") -> tuple[Size, Shape]:
    """Size and shape of a model from its config.json.

    Args:
        bits: stored bits of a weight in the decoder layers; embeddings and output head have 16. Default: 16, of a model that is not
            quantized.
        stated_by: how the user states them, for the message that asks for them.

    Raises:
        BadInput: the file cannot be read, its architecture is not counted, it is quantized to a number of bits that nobody states, or the
            bits are not possible.
    """
    if bits is not None:
        _check_bits(bits)
    config = read_config(path)
    text = text_part(config)
    family, sizes = str(text.get("model_type") or config.get("model_type") or ""), text_sizes(text.get)
    if family not in COUNTED or sizes is None or _has_more(text):
        raise BadInput(
            f"{path}: the parameters of {family or 'an unnamed architecture'} cannot be counted from its dimensions alone "
            f"(those of {', '.join(COUNTED)} without added biases can); {STATE}"
        )
    if (config.get("quantization_config") or config.get("compression_config")) and bits is None:
        raise BadInput(
            f"{path} says that the weights are quantized, and not how many bits a weight takes with its scales; state them {stated_by}"
        )
    row = {
        "architecture": family,
        "layers": sizes.layers,
        "hidden": sizes.hidden,
        "intermediate": sizes.intermediate,
        "heads": sizes.heads,
        "kv_heads": sizes.key_value_heads,
        "head_dim": sizes.head_dim,
        "vocabulary": sizes.vocabulary,
        "tied": int(_tied(text, config, family)),
        "gated": 1,
        "experts": 0,
        "experts_per_token": 0,
    }
    stored = BF16 if bits is None else WeightStorage(bits, weight_only=bits < 16)
    return counted_from({key: str(value) for key, value in row.items()}, stored)


def _has_more(text: Mapping[str, Any]) -> bool:
    """Whether a configuration adds parameters that its architecture usually has not."""
    return bool(text.get("attention_bias") or text.get("mlp_bias"))


def _tied(text: Mapping[str, Any], config: Mapping[str, Any], family: str) -> bool:
    """Whether the output head is the input embedding; Gemma's is, where the configuration does not say."""
    stated = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return family.startswith("gemma") if stated is None else bool(stated)
