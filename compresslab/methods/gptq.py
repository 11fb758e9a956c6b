"""The GPTQ method and the GPTQ checkpoint format."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from compresslab.methods.format import WORD_BITS, Format, Packing, Quantization
from compresslab.methods.method import Method, solver_cost
from compresslab.methods.settings import StepConfig

# The file in which auto-gptq stored its settings.
AUTO_GPTQ_SETTINGS = "quantize_config.json"


class QuantizeGPTQ(StepConfig):
    """GPTQ: round one column after the other and correct the columns to come, in a GPTQ checkpoint that vLLM and transformers load.

    One scale per `group_size` weights of a row. `activation_order` visits the columns of largest activations first. `damping` is its
    share of the mean curvature.
    """

    method: Literal["gptq"]
    bits: Literal[2, 3, 4, 8] = 4
    group_size: PositiveInt = 32
    symmetric: bool = True
    activation_order: bool = True
    damping: PositiveFloat = 0.01


def zero_point_bits(packing: Packing) -> float:
    """Bits per weight, with a scale of 16 bits per group and a zero point that is packed like a weight."""
    return packing.bits + (16 + packing.bits) / (packing.group_size or 1)


def kernel(quantization: Quantization) -> str:
    """gptqmodel runs both GPTQ and AWQ. Some AWQ configurations call the bits `w_bit`."""
    bits = quantization.get("bits") or quantization.get("w_bit")
    name = str(quantization.get("quant_method", "gptq")).upper()
    return f"gptqmodel, {name} {bits}-bit" if bits else f"gptqmodel, {name}"


def packing(config: QuantizeGPTQ) -> Packing:
    """Bits and group size are settings."""
    return Packing(config.bits, config.group_size)


GPTQ_FORMAT = Format(
    "gptq",
    "compresslab.models.formats.gptq",
    files=(AUTO_GPTQ_SETTINGS,),
    bits=zero_point_bits,
    kernel=kernel,
    whole_groups=True,
    multiple=WORD_BITS,
)
GPTQ = Method(
    "quantize",
    "gptq",
    QuantizeGPTQ,
    "compresslab.steps.quantize_gptq",
    "calibration",
    "grams",
    libraries=("gptqmodel", "optimum"),
    format=GPTQ_FORMAT,
    packing=packing,
    layerwise=True,
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
    cost=solver_cost,
)
