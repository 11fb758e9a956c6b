"""Writes and reads the tensors of a quantized linear layer in AWQ checkpoints of version "gemm"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.gptq import Rounded
from compresslab.errors import UnsupportedModel
from compresslab.methods.awq import BITS
from compresslab.methods.format import Quantization
from compresslab.models.formats.bit_packing import packed, unpacked
from compresslab.models.formats.gptqmodel_layers import TENSOR_NAMES, KernelLayers
from compresslab.models.formats.own_tensors import unpacked_model
from compresslab.models.formats.reader import Reader, quantization_of

SCALES = torch.float16
# The order of the eight outputs in a word, from the lowest four bits up.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def tensors_of(rounded: Rounded) -> dict[str, Tensor]:
    """qweight (inputs, outputs / 8), qzeros (groups, outputs / 8), scales (groups, outputs).

    Args:
        rounded: codes (outputs, inputs), the outputs a multiple of 32.
    """
    return {
        "qweight": _interleaved(rounded.codes),
        "qzeros": _interleaved(rounded.grid.zero),
        "scales": rounded.grid.scale.T.contiguous().to(SCALES),
    }


def weight_of(tensors: dict[str, Tensor]) -> Tensor:
    """The plain weight (outputs, inputs), rounded like the kernels do."""
    codes, zeros = _deinterleaved(tensors["qweight"]), _deinterleaved(tensors["qzeros"])
    group_size = codes.shape[1] // zeros.shape[1]
    scales = tensors["scales"].T.float()
    weight = (codes.float() - zeros.float().repeat_interleave(group_size, 1)) * scales.repeat_interleave(group_size, 1)
    return weight.to(SCALES)


def _interleaved(values: Tensor) -> Tensor:
    """Values (outputs, n) as words (n, outputs / 8)."""
    ordered = values.view(-1, len(ORDER), values.shape[1])[:, list(ORDER)].flatten(0, 1)
    return packed(ordered, BITS).T.contiguous()


def _deinterleaved(words: Tensor) -> Tensor:
    """Inverts `_interleaved`."""
    ordered = unpacked(words.T.contiguous(), BITS)
    inverse_order = torch.tensor(ORDER).argsort()
    return ordered.view(-1, len(ORDER), ordered.shape[1])[:, inverse_order].flatten(0, 1)


def settings(group_size: int) -> dict[str, Any]:
    """The `quantization_config` of config.json."""
    return {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": group_size,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": None,
    }


class AWQReader(KernelLayers):
    """Unpacks AWQ checkpoints."""

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights, rounded like the kernels do."""
        if (version := (quantization_of(folder) or {}).get("version", "gemm")) != "gemm":
            raise UnsupportedModel(f"{folder}: AWQ of version {version!r} is not read; take one of version 'gemm'")
        return unpacked_model(folder, TENSOR_NAMES, weight_of, device)

    def rows_of(self, tensors: Mapping[str, Tensor], quantization: Quantization, rows: int) -> Tensor | None:  # noqa: ARG002
        """The first rows of a layer's weight, rounded like the kernels do."""
        words = {name: tensors[name][:, : rows // len(ORDER)] for name in ("qweight", "qzeros")}
        return weight_of({**words, "scales": tensors["scales"][:, :rows]})


def reader() -> Reader:
    """The reader that `Format.reader` refers to."""
    return AWQReader()
