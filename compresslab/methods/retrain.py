"""Training on text: all weights, or low-rank adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from compresslab.methods.method import Cost, Footprint, Method
from compresslab.methods.settings import Optimizer, Seed, StepConfig
from compresslab.methods.training import (
    FORWARDS_A_STEP,
    ActivationCheckpointing,
    Devices,
    refuse_undivided,
    training_memory,
    undivided_states,
)

# Bytes per parameter of the model: adapters with their moments, and the activations of a pass.
ADAPTER_BYTES = 5


def _learning_rate(default: float) -> BeforeValidator:
    """Makes `default` the learning rate of a recipe that sets other fields of the optimizer only."""
    return BeforeValidator(lambda given: {"learning_rate": default, **given} if isinstance(given, dict) else given)


class RetrainFull(StepConfig):
    """Continue training all weights on the training text, over `tokens` tokens, or `until` the loss on held-out text is as low as another
    model's: that of `parent` (the model before the last prune step), of `base` or of a variant.

    `devices` train together, each with a part of the weights; `auto` takes as few as hold them. On a processor they are processes. Results
    differ in rounding alone, so the number is in no content key. `activation_checkpointing` computes activations again in the backward
    pass: less memory, a third more time, the same result.
    """

    method: Literal["full"]
    tokens: PositiveInt
    until: str | None = None
    optimizer: Annotated[Optimizer, _learning_rate(1e-4)] = Optimizer(learning_rate=1e-4)
    seed: Seed = 0
    devices: Devices = 1
    activation_checkpointing: ActivationCheckpointing = False

    @model_validator(mode="after")
    def _divisible(self) -> RetrainFull:
        refuse_undivided(self.devices, undivided_full(self))
        return self


class RetrainLoRA(StepConfig):
    """Train low-rank adapters on every linear layer of the blocks and merge them at the end; `qlora` over weights held at 4 bits (NF4).

    `devices` is that of `full`, for `lora` without `dropout`; so is `activation_checkpointing`, with `dropout`, too.
    """

    method: Literal["lora", "qlora"]
    tokens: PositiveInt
    until: str | None = None
    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Annotated[Optimizer, _learning_rate(1e-3)] = Optimizer(learning_rate=1e-3)
    seed: Seed = 0
    devices: Devices = 1
    activation_checkpointing: ActivationCheckpointing = False

    @model_validator(mode="after")
    def _divisible(self) -> RetrainLoRA:
        refuse_undivided(self.devices, undivided(self))
        return self


def undivided(config: RetrainLoRA) -> str:
    """Why several devices cannot train adapters together; empty if they can."""
    if config.method == "qlora":
        return "weights that bitsandbytes packs cannot be divided among devices; take devices: 1, or lora"
    if config.dropout:
        return "what dropout drops would depend on the number of devices; take devices: 1, or dropout: 0"
    return undivided_states(config.optimizer)


def undivided_full(config: RetrainFull) -> str:
    """Why several devices cannot train all weights together; empty if they can."""
    return undivided_states(config.optimizer)


def full_cost(config: RetrainFull, model: Footprint) -> Cost:
    """A forward and a backward pass of every token."""
    seconds = config.tokens * (FORWARDS_A_STEP + config.activation_checkpointing) * model.forward
    return Cost(seconds, training_memory(model, config.optimizer))


def adapter_cost(config: RetrainLoRA, model: Footprint) -> Cost:
    """As for all weights, but only the adapters have moments."""
    seconds = config.tokens * (FORWARDS_A_STEP + config.activation_checkpointing) * model.forward
    return Cost(seconds, ADAPTER_BYTES * model.dimensions.parameters + model.weights)


MODULE = "compresslab.steps.retrain"
FULL = Method("retrain", "full", RetrainFull, MODULE, "training", trains=True, cost=full_cost, undivided=undivided_full)
LORA = Method(
    "retrain",
    "lora",
    RetrainLoRA,
    MODULE,
    "training",
    trains=True,
    libraries=("peft",),
    ends_stay=True,
    linears_alone=True,
    cost=adapter_cost,
    undivided=undivided,
)
QLORA = Method(
    "retrain",
    "qlora",
    RetrainLoRA,
    MODULE,
    "training",
    trains=True,
    libraries=("peft", "bitsandbytes"),
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
    cost=adapter_cost,
    undivided=undivided,
)
