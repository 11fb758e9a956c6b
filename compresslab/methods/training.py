"""What distillation and retraining have in common: the number of devices, and the costs of training all weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from compresslab.methods.method import Footprint
from compresslab.methods.settings import Optimizer

# The devices that train a model together, each with a part of its weights; `auto` takes as few as hold it. It is no setting of the result:
# the batches are the same with any number, so results differ in rounding alone, as they do with another number of threads. It is
# therefore in no dump of the settings, neither for keys nor for records.
Devices = Annotated[PositiveInt | Literal["auto"], Field(exclude=True)]
# Whether a decoder layer's activations are computed again in the backward pass, and not kept. They are the same, so this is no setting of
# the result either.
ActivationCheckpointing = Annotated[bool, Field(exclude=True)]

# Cost of a forward and a backward pass, in forward passes.
FORWARDS_A_STEP = 3
# Master weight and gradient in float32 for each parameter, and two moments of AdamW by their bits. Those of 8 have a scale a block of 256.
WEIGHT_BYTES = 8
MOMENT_BYTES = {32: 8.0, 8: 2 * (1 + 4 / 256)}
FLOAT32_BYTES = 4


def refuse_undivided(devices: int | str, why: str) -> None:
    """Refuse several devices for a step that they cannot make together.

    Args:
        why: why they cannot; empty if they can.

    Raises:
        ValueError: pydantic reports it at the step's place.
    """
    if why and devices not in (1, "auto"):
        raise ValueError(f"devices: {why}")


def undivided_states(optimizer: Optimizer) -> str:
    """Why several devices cannot divide the optimizer's states among them; empty if they can."""
    if optimizer.state_bits == 32:
        return ""
    return "blocks of 8-bit states would be others in shards, and with them the result; take devices: 1, or optimizer.state_bits: 32"


def training_memory(model: Footprint, optimizer: Optimizer) -> float:
    """Bytes for training all weights of a model, with a second copy of the weights where it does not compute in float32."""
    parameters = model.dimensions.parameters
    copy = model.weights if model.weights < FLOAT32_BYTES * parameters else 0.0
    return (WEIGHT_BYTES + MOMENT_BYTES[optimizer.state_bits]) * parameters + copy
