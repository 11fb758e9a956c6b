"""compressed-tensors checkpoints, unpacked by their library as it loads them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from compresslab.models.device import placement
from compresslab.models.formats.reader import Reader
from compresslab.models.load import quiet


class CompressedTensorsReader(Reader):
    """The library unpacks a layer at its first use, or all of them at once."""

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights."""
        with quiet(), warnings.catch_warnings():
            # It warns that the folder's own settings win over all but `dequantize`, which is what is wanted.
            warnings.simplefilter("ignore", UserWarning)
            plain = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                quantization_config=CompressedTensorsConfig(dequantize=True),
                **placement(device),
            )
        return plain.eval()


def reader() -> Reader:
    """What `Format.reader` names."""
    return CompressedTensorsReader()
