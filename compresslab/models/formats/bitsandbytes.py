"""bitsandbytes checkpoints: 4-bit blocks and LLM.int8() rows.

The library is imported where it is used: it asks CUDA for its devices when it is imported.
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
    """The library repacks weights in memory at their first use, so that they are read from the files again."""

    counts_in_memory = True
    names_as_stored = True

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights."""
        with quiet():
            packed = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **placement(device))
            plain: PreTrainedModel = packed.dequantize().eval()
        return plain

    def plain_weight(self, parameter: Tensor) -> Tensor:
        """A 4-bit weight unpacked; an int8 weight is zero where its value is."""
        state = getattr(parameter, "quant_state", None)
        if state is None:
            return parameter
        from bitsandbytes.functional import dequantize_4bit

        weight: Tensor = dequantize_4bit(parameter.data, state)
        return weight


def reader() -> Reader:
    """What `Format.reader` names."""
    return BitsAndBytesReader()
