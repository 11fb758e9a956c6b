"""Unpacks weights for scoring: the mathematics are equal, and plain weights are much faster than a packed kernel on a CPU."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from compresslab.methods.format import Quantization
from compresslab.models.device import find_device
from compresslab.models.formats.reader import known_format, quantization_of, reader_of
from compresslab.models.load import Loaded, cast, explained, load_folder, load_tokenizer
from compresslab.recipe.model_folder import check_claims


def kernel_name(folder: Path) -> str:
    """The kernel that runs when transformers loads the folder, named for a table."""
    quantization = quantization_of(folder)
    return "plain weights" if quantization is None else known_format(quantization).kernel(quantization)


def scored_as_stored(folder: Path) -> bool:
    """Whether the stored weights must be scored as they are: plain weights, and LLM.int8(), which also rounds activations."""
    quantization = quantization_of(folder)
    return quantization is None or known_format(quantization).rounds_inputs(quantization)


def countable(folder: Path) -> bool:
    """Whether non-zero weights can be counted on the model in memory before its first use."""
    quantization = quantization_of(folder)
    return quantization is None or reader_of(quantization).counts_in_memory


def dequantized(folder: Path, loaded: Loaded) -> Loaded:
    """The same variant with plain weights; `loaded` itself if its weights are plain."""
    quantization = quantization_of(folder)
    if quantization is None:
        return loaded
    return Loaded(_plain_model(folder, quantization, loaded.model.device), loaded.tokenizer)


def load_for_scoring(folder: Path, dtype: torch.dtype, device: str | None = None) -> tuple[Loaded, str]:
    """A saved variant for scoring in `dtype`, and whether its weights are "as stored" or "dequantized"."""
    quantization = quantization_of(folder)
    if quantization is None:
        return load_folder(folder, dtype, device), "as stored"
    if scored_as_stored(folder):
        loaded = load_folder(folder, device=device)
        return Loaded(cast(loaded.model, dtype), loaded.tokenizer), "as stored"
    plain = _plain_model(folder, quantization, find_device(device))
    return Loaded(cast(plain, dtype), load_tokenizer(folder)), "dequantized"


def _plain_model(folder: Path, quantization: Quantization, device: torch.device) -> PreTrainedModel:
    """The model of a packed folder with plain weights. Raises BadInput if its settings or its tensors are damaged."""
    check_claims(folder)
    with explained(folder):
        return reader_of(quantization).plain_model(folder, device)
