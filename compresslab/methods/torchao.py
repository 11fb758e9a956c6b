"""torchao's weight-only quantization."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from compresslab.methods.format import Format, Packing, Quantization
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig, refuse_unread


class QuantizeTorchAO(StepConfig):
    """torchao's weight-only int8 (one scale a row) or int4 (one scale per `group_size` weights)."""

    method: Literal["torchao-int8", "torchao-int4"]
    group_size: PositiveInt = 32

    @model_validator(mode="after")
    def _groups_are_of_int4(self) -> QuantizeTorchAO:
        refuse_unread(self, {"group_size": "torchao-int4"})
        return self


def bits(packing: Packing) -> float:
    """Bits per weight, with a scale and a zero point of 16 bits per group at 4 bits, and one scale per row at 8 bits."""
    return 8.1 if packing.group_size is None else packing.bits + 32 / packing.group_size


def rounds_inputs(quantization: Quantization) -> bool:
    """Configurations with dynamic or static activations (Int8DynamicActivationInt8WeightConfig) also round them; these methods do not."""
    return "Activation" in str(quantization.get("quant_type"))


def packing(config: QuantizeTorchAO) -> Packing:
    """int8 has no groups."""
    return Packing(8) if config.method == "torchao-int8" else Packing(4, config.group_size)


TORCHAO = Format("torchao", "compresslab.models.formats.torchao", bits=bits, rounds_inputs=rounds_inputs, whole_groups=True)
INT8, INT4 = (
    Method(
        "quantize",
        name,
        QuantizeTorchAO,
        "compresslab.steps.quantize_torchao",
        libraries=("torchao",),
        format=TORCHAO,
        packing=packing,
        ends_stay=True,
        linears_alone=True,
        plain_linears=True,
    )
    for name in ("torchao-int8", "torchao-int4")
)
