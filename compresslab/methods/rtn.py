"""Round to nearest, in the compressed-tensors format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt

from compresslab.methods.format import Format, Packing, Quantization
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig


class QuantizeRTN(StepConfig):
    """Round to nearest, symmetric, one scale per `group_size` weights of a row; the baseline of weight quantization."""

    method: Literal["rtn"]
    bits: Literal[4, 8] = 4
    group_size: PositiveInt = 32


def bits(packing: Packing) -> float:
    """Bits per weight, with a scale of 16 bits per group."""
    return packing.bits + 16 / (packing.group_size or 1)


def kernel(_: Quantization) -> str:
    """transformers unpacks the weights before it multiplies by them."""
    return "compressed-tensors, unpacked at the first use"


def rounds_inputs(quantization: Quantization) -> bool:
    """W8A8 and FP8 checkpoints of other tools also round activations; rtn does not."""
    groups = quantization.get("config_groups")
    return isinstance(groups, Mapping) and any(isinstance(group, Mapping) and group.get("input_activations") for group in groups.values())


def packing(config: QuantizeRTN) -> Packing:
    """Bits and group size are settings."""
    return Packing(config.bits, config.group_size)


COMPRESSED_TENSORS = Format(
    "compressed-tensors",
    "compresslab.models.formats.compressed_tensors",
    bits=bits,
    kernel=kernel,
    rounds_inputs=rounds_inputs,
    whole_groups=True,
)
RTN = Method(
    "quantize",
    "rtn",
    QuantizeRTN,
    "compresslab.steps.quantize_rtn",
    libraries=("compressed-tensors",),
    format=COMPRESSED_TENSORS,
    packing=packing,
    layerwise=True,
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
)
