"""AWQ checkpoints ("gemm"): the tensors of a quantized linear layer, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.gptq import Rounded
from compresslab.errors import UnsupportedModel
from compresslab.methods.awq import BITS
from compresslab.models.formats.bit_packing import packed, unpacked
from compresslab.models.formats.gptqmodel_layers import TENSOR_NAMES, KernelLayers
from compresslab.models.formats.own_tensors import unpacked_model
from compresslab.models.formats.reader import Reader, quantization_of

SCALES = torch.float16
# Eight outputs share a word; this is which of them lies where, from the lowest four bits up.
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
    """The plain weight (outputs, inputs), rounded as the kernels round it."""
    codes, zeros = _straight(tensors["qweight"]), _straight(tensors["qzeros"])
    group_size = codes.shape[1] // zeros.shape[1]
    scales = tensors["scales"].T.float()
    wide = (codes.float() - zeros.float().repeat_interleave(group_size, 1)) * scales.repeat_interleave(group_size, 1)
    return wide.to(SCALES)


def _interleaved(values: Tensor) -> Tensor:
    """(outputs, n) as words (n, outputs / 8)."""
    mixed = values.view(-1, len(ORDER), values.shape[1])[:, list(ORDER)].flatten(0, 1)
    return packed(mixed, BITS).T.contiguous()


def _straight(words: Tensor) -> Tensor:
    """The reverse of `_interleaved`."""
    mixed = unpacked(words.T.contiguous(), BITS)
    back = torch.tensor(ORDER).argsort()
    return mixed.view(-1, len(ORDER), mixed.shape[1])[:, back].flatten(0, 1)


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
    """Unpacks by this module."""

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights, as the kernels round them."""
        if (version := (quantization_of(folder) or {}).get("version", "gemm")) != "gemm":
            raise UnsupportedModel(f"{folder}: AWQ of version {version!r} is not read; take one of version 'gemm'")
        return unpacked_model(folder, TENSOR_NAMES, weight_of, device)


def reader() -> Reader:
    """What `Format.reader` names."""
    return AWQReader()
