"""bitsandbytes: 4-bit NormalFloat and floating point, and LLM.int8()."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import PositiveFloat

from compresslab.methods.format import Format, Packing, Quantization
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig


class Quantize4Bit(StepConfig):
    """bitsandbytes 4-bit NormalFloat or floating point with blocks of 64 weights; embeddings and output head stay as they are."""

    method: Literal["bnb-nf4", "bnb-fp4"]
    double_quantization: bool = False


class QuantizeInt8(StepConfig):
    """bitsandbytes LLM.int8(): vector-wise int8, outlier features above `threshold` at 16 bits."""

    method: Literal["bnb-int8"]
    threshold: PositiveFloat = 6.0


def bits(packing: Packing) -> float:
    """Bits per weight, with a scale of 32 bits per block of 64 weights at 4 bits, and one per row at 8 bits."""
    return 4.5 if packing.bits == 4 else 8.1


def rounds_inputs(quantization: Quantization) -> bool:
    """LLM.int8() multiplies at 8 bits; the 4-bit kernels unpack the weights to 16 bits."""
    return bool(quantization.get("load_in_8bit"))


def kernel(quantization: Quantization) -> str:
    """bitsandbytes has one kernel for 8 bits and one for 4 bits."""
    return "bitsandbytes LLM.int8()" if rounds_inputs(quantization) else "bitsandbytes 4-bit"


def packing(config: Quantize4Bit | QuantizeInt8) -> Packing:
    """The method decides the bits."""
    return Packing(4 if isinstance(config, Quantize4Bit) else 8)


BITSANDBYTES = Format(
    "bitsandbytes",
    "compresslab.models.formats.bitsandbytes",
    bits=bits,
    kernel=kernel,
    rounds_inputs=rounds_inputs,
    flags=("load_in_4bit", "load_in_8bit"),
)
MODULE, LIBRARIES = "compresslab.steps.quantize_bnb", ("bitsandbytes",)
NF4 = Method(
    "quantize",
    "bnb-nf4",
    Quantize4Bit,
    MODULE,
    libraries=LIBRARIES,
    format=BITSANDBYTES,
    packing=packing,
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
)
FP4 = replace(NF4, name="bnb-fp4")
INT8 = Method(
    "quantize",
    "bnb-int8",
    QuantizeInt8,
    MODULE,
    libraries=LIBRARIES,
    format=BITSANDBYTES,
    packing=packing,
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
)
