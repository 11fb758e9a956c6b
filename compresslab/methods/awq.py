"""AWQ, and the checkpoint format of its name."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from compresslab.methods.format import WORD, Format, Packing
from compresslab.methods.gptq import kernel, zero_point_bits
from compresslab.methods.method import Method, solved
from compresslab.methods.settings import StepConfig

BITS = 4


class QuantizeAWQ(StepConfig):
    """AWQ: scale up the input channels that matter before rounding to 4 bits, in an AWQ checkpoint that vLLM and transformers load."""

    method: Literal["awq"]
    group_size: PositiveInt = 32


def packing(config: QuantizeAWQ) -> Packing:
    """The format has 4 bits alone."""
    return Packing(BITS, config.group_size)


AWQ_FORMAT = Format("awq", "compresslab.models.formats.awq", bits=zero_point_bits, kernel=kernel, whole_groups=True, multiple=WORD)
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
    cost=solved,
)
