"""Packed weights as plain ones, for scoring: equal mathematics, and much faster than a packed kernel on a CPU."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from compresslab.models.device import placement
from compresslab.models.load import Loaded, cast, load_folder, load_tokenizer, quiet


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


def countable(folder: Path) -> bool:
    """Whether non-zero weights can be counted on the model in memory, packed or not, before its first use."""
    quantization = quantization_of(folder)
    return quantization is None or quantization["quant_method"] == "bitsandbytes"


def dequantized(folder: Path, loaded: Loaded) -> Loaded:
    """The same variant with plain weights; `loaded` itself where its weights are plain already.

    Packed weights are read from the files again: bitsandbytes repacks them in memory at their first use.
    """
    quantization = quantization_of(folder)
    return loaded if quantization is None else Loaded(_plain_model(folder, quantization), loaded.tokenizer)


def _plain_model(folder: Path, quantization: dict[str, Any]) -> PreTrainedModel:
    with quiet(), warnings.catch_warnings():
        if quantization["quant_method"] == "bitsandbytes":
            packed = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **placement())
            return packed.dequantize().eval()
        # It warns that the folder's own settings win over all but `dequantize`, which is what is wanted.
        warnings.simplefilter("ignore", UserWarning)
        settings = CompressedTensorsConfig(dequantize=True)
        plain = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, quantization_config=settings, **placement()
        )
        return plain.eval()


def load_for_scoring(folder: Path, dtype: torch.dtype) -> tuple[Loaded, str]:
    """A saved variant ready to be scored in `dtype`, and whether its weights are "as stored" or "dequantized"."""
    quantization = quantization_of(folder)
    if quantization is None:
        return load_folder(folder, dtype), "as stored"
    if scored_as_stored(folder):
        return load_folder(folder), "as stored"
    return Loaded(cast(_plain_model(folder, quantization), dtype), load_tokenizer(folder)), "dequantized"
