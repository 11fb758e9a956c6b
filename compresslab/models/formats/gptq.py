"""Writes and reads the tensors of a quantized linear layer in GPTQ checkpoints.

auto-gptq introduced the format; gptqmodel, vLLM, transformers and optimum read it. Its first form ("gptq") stores each zero point minus 1,
so that it cannot represent a zero point of 0. The second form ("gptq_v2") stores the zero point itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.gptq import Rounded
from compresslab.errors import UnsupportedModel
from compresslab.methods.format import WORD_BITS, Quantization
from compresslab.models.formats.bit_packing import packed, unpacked
from compresslab.models.formats.gptqmodel_layers import TENSOR_NAMES, KernelLayers
from compresslab.models.formats.own_tensors import unpacked_model
from compresslab.models.formats.reader import Reader, quantization_of

# The dtype of scales in the kernels, which also multiply codes by scales in it, whatever the model's dtype.
SCALES = torch.float16
ZERO_POINT_OFFSET = {"gptq": 1, "gptq_v2": 0}


def tensors_of(rounded: Rounded, bits: int) -> dict[str, Tensor]:
    """qweight (inputs * bits / 32, outputs), qzeros (groups, outputs * bits / 32), scales (groups, outputs), g_idx (inputs,).

    Args:
        rounded: codes (outputs, inputs), both sizes multiples of 32; scales that are representable in `SCALES`.
    """
    groups, inputs = rounded.grid.scale.shape[1], rounded.codes.shape[1]
    zeros = rounded.grid.zero.to(torch.int64) - ZERO_POINT_OFFSET["gptq"]
    return {
        "qweight": packed(rounded.codes.T, bits),
        "qzeros": packed(zeros, bits).T.contiguous(),
        "scales": rounded.grid.scale.T.contiguous().to(SCALES),
        "g_idx": (torch.arange(inputs) // (inputs // groups)).to(torch.int32),
    }


def weight_of(tensors: dict[str, Tensor], bits: int, form: str) -> Tensor:
    """The plain weight (outputs, inputs) of a layer's tensors in `form` ("gptq" or "gptq_v2"), rounded like the kernels do."""
    codes = unpacked(tensors["qweight"], bits)
    zeros = unpacked(tensors["qzeros"].T.contiguous(), bits).T.to(torch.int64) + ZERO_POINT_OFFSET[form]
    zeros &= 2**bits - 1
    groups = tensors["g_idx"].long()
    return ((codes.float() - zeros[groups].float()) * tensors["scales"][groups].float()).to(SCALES).T.contiguous()


def settings(bits: int, group_size: int, *, symmetric: bool) -> dict[str, Any]:
    """The `quantization_config` of config.json."""
    from compresslab import __version__

    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": bits,
        "group_size": group_size,
        "sym": symmetric,
        "desc_act": False,
        "lm_head": False,
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"compresslab:{__version__}"]},
    }


class GPTQReader(KernelLayers):
    """Unpacks GPTQ checkpoints."""

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights, rounded like the kernels do."""
        quantization = quantization_of(folder) or {}
        form = quantization.get("checkpoint_format") or "gptq"
        if form not in ZERO_POINT_OFFSET or quantization.get("dynamic"):
            raise UnsupportedModel(f"{folder}: GPTQ in the form {form!r}, or with bits by layer, is not read; take one in the form 'gptq'")
        return unpacked_model(folder, TENSOR_NAMES, partial(weight_of, bits=quantization["bits"], form=form), device)

    def rows_of(self, tensors: Mapping[str, Tensor], quantization: Quantization, rows: int) -> Tensor | None:
        """The first rows of a layer's weight, rounded like the kernels do."""
        bits = quantization["bits"]
        part = {"g_idx": tensors["g_idx"], "qzeros": tensors["qzeros"][:, : rows * bits // WORD_BITS]}
        part |= {name: tensors[name][:, :rows] for name in ("qweight", "scales")}
        return weight_of(part, bits, quantization.get("checkpoint_format") or "gptq")


def reader() -> Reader:
    """The reader that `Format.reader` refers to."""
    return GPTQReader()
