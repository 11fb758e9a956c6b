"""bitsandbytes checkpoints: 4-bit blocks and LLM.int8() rows.

The library is imported where it is used, since its import initializes CUDA.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.models.device import placement
from compresslab.models.formats.reader import Reader
from compresslab.models.load import quiet


class BitsAndBytesReader(Reader):
    """Reads weights from the files again, since the library repacks those in memory at their first use."""

    counts_in_memory = True
    names_as_stored = True

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights."""
        with quiet():
            packed = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False, **placement(device)
            )
            plain: PreTrainedModel = packed.dequantize().eval()
        return plain

    def plain_weight(self, parameter: Tensor) -> Tensor:
        """An unpacked 4-bit weight, or an int8 weight itself, which has the same zeros."""
        state = getattr(parameter, "quant_state", None)
        if state is None:
            return parameter
        from bitsandbytes.functional import dequantize_4bit

        weight: Tensor = dequantize_4bit(parameter.data, state)
        return weight


def reader() -> Reader:
    """The reader that `Format.reader` refers to."""
    return BitsAndBytesReader()
