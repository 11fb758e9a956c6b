"""compressed-tensors checkpoints, which their library unpacks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.methods.format import WORD_BITS, Quantization
from compresslab.models.device import placement
from compresslab.models.formats.reader import Reader, quantization_of
from compresslab.models.load import quiet

# What unpacking reads of how a group of layers is packed.
SCHEME = ("num_bits", "type", "strategy", "group_size", "block_structure", "symmetric")


def _scheme(group: object) -> str:
    """What decides how a group of layers is unpacked. A group may be the name of a preset with its layers."""
    if not isinstance(group, Mapping):
        return str(group)
    weights = group.get("weights")
    packing = [weights.get(name) for name in SCHEME] if isinstance(weights, Mapping) else weights
    return json.dumps([packing, group.get("format")])


class CompressedTensorsReader(Reader):
    """Makes the library unpack all layers at once, instead of each at its first use."""

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights.

        Raises:
            UnsupportedModel: layers are packed in different ways. The library unpacks all of them in the first way, without an error.
        """
        schemes = {_scheme(group) for group in ((quantization_of(folder) or {}).get("config_groups") or {}).values()}
        if len(schemes) > 1:
            what = f"its layers are packed in {len(schemes)} ways (config_groups of compressed-tensors), which are not unpacked here"
            raise UnsupportedModel(f"{folder}: {what}; take a model that is packed in one way, or the plain one")
        with quiet(), warnings.catch_warnings():
            # The library warns that all other settings come from the folder, which is intended.
            warnings.simplefilter("ignore", UserWarning)
            plain = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                quantization_config=CompressedTensorsConfig(dequantize=True),
                **placement(device),
            )
        return plain.eval()

    def rows_of(self, tensors: Mapping[str, Tensor], quantization: Quantization, rows: int) -> Tensor | None:
        """The first rows of a layer's weight with symmetric levels, as `quantize rtn` packs it."""
        bits: int = next(iter(quantization["config_groups"].values()))["weights"]["num_bits"]
        inputs, scales = int(tensors["weight_shape"][1]), tensors["weight_scale"][:rows].float()
        places = bits * torch.arange(WORD_BITS // bits, dtype=torch.int32)
        levels = (tensors["weight_packed"][:rows, :, None] >> places) & (2**bits - 1)
        weight: Tensor = (levels.flatten(1)[:, :inputs].float() - 2 ** (bits - 1)) * scales.repeat_interleave(inputs // scales.shape[1], 1)
        return weight


def reader() -> Reader:
    """The reader that `Format.reader` refers to."""
    return CompressedTensorsReader()
