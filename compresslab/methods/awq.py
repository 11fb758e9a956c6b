"""The AWQ method and the AWQ checkpoint format."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from compresslab.methods.format import WORD_BITS, Format, Packing
from compresslab.methods.gptq import kernel, zero_point_bits
from compresslab.methods.method import Method, solver_cost
from compresslab.methods.settings import StepConfig

BITS = 4


class QuantizeAWQ(StepConfig):
    """AWQ: scale up the input channels that matter before rounding to 4 bits, in an AWQ checkpoint that vLLM and transformers load."""

    method: Literal["awq"]
    group_size: PositiveInt = 32


def packing(config: QuantizeAWQ) -> Packing:
    """The format stores 4 bits only."""
    return Packing(BITS, config.group_size)


AWQ_FORMAT = Format("awq", "compresslab.models.formats.awq", bits=zero_point_bits, kernel=kernel, whole_groups=True, multiple=WORD_BITS)
AWQ = Method(
    "quantize",
    "awq",
    QuantizeAWQ,
    "compresslab.steps.quantize_awq",
    "calibration",
    "grams",
    libraries=("gptqmodel",),
    format=AWQ_FORMAT,
    packing=packing,
    layerwise=True,
    ends_stay=True,
    cost=solver_cost,
    plain_linears=True,
)
