"""Packed weights as plain ones, for scoring: equal mathematics, and much faster than a packed kernel on a CPU."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from compresslab.models.load import Loaded, cast, load_folder, quiet


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """The `quantization_config` of a saved variant, `None` for plain weights."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config.get("quantization_config")


def kernel_name(folder: Path) -> str:
    """Which kernel runs when plain transformers loads the folder, in words for a table."""
    quantization = quantization_of(folder)
    if quantization is None:
        return "plain weights"
    if quantization["quant_method"] == "bitsandbytes":
        return "bitsandbytes LLM.int8()" if quantization.get("load_in_8bit") else "bitsandbytes 4-bit"
    if quantization["quant_method"] == "compressed-tensors":
        return "compressed-tensors, unpacked at the first use"
    return str(quantization["quant_method"])


def scored_as_stored(folder: Path) -> bool:
    """Whether scores must come from the weights as they are stored: plain ones, and LLM.int8(), which rounds activations too."""
    quantization = quantization_of(folder)
    return quantization is None or bool(quantization.get("load_in_8bit"))


def dequantized(folder: Path, loaded: Loaded) -> Loaded:
    """The same variant with plain weights; `loaded` itself where its weights are plain already."""
    quantization = quantization_of(folder)
    if quantization is None:
        return loaded
    if quantization["quant_method"] == "bitsandbytes":
        # From the files again: bitsandbytes repacks 4-bit weights in memory at their first use.
        model = load_folder(folder).model
        with quiet():
            return Loaded(model.dequantize().eval(), loaded.tokenizer)
    with quiet(), warnings.catch_warnings():
        # It warns that the folder's own settings win over all but `dequantize`, which is what is wanted.
        warnings.simplefilter("ignore", UserWarning)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, quantization_config=CompressedTensorsConfig(dequantize=True)
        )
    return Loaded(model.eval(), loaded.tokenizer)


def load_for_scoring(folder: Path, dtype: torch.dtype) -> tuple[Loaded, str]:
    """A saved variant ready to be scored in `dtype`, and whether its weights are "as stored" or "dequantized"."""
    if quantization_of(folder) is None:
        return load_folder(folder, dtype), "as stored"
    if scored_as_stored(folder):
        return load_folder(folder), "as stored"
    plain = dequantized(folder, load_folder(folder))
    return Loaded(cast(plain.model, dtype), plain.tokenizer), "dequantized"
