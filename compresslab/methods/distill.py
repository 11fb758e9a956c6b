"""Distillation: a variant is trained on its teacher's next-token distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from compresslab.methods.method import Cost, Footprint, Method
from compresslab.methods.settings import Optimizer, Seed, Share, StepConfig, refuse_unread
from compresslab.methods.training import (
    FORWARDS_A_STEP,
    ActivationCheckpointing,
    Devices,
    refuse_undivided,
    training_memory,
    undivided_states,
)


class Distill(StepConfig):
    """Train the variant on its teacher's next-token distributions, over `tokens` tokens.

    `teacher` is `base` or the name of another variant of this study with the same tokenizer. The divergence is `method`'s, at
    `temperature`: `jsd` goes from the forward KL (`beta` near 0) to the reverse one (near 1), both small at the ends; `skewed-kl` mixes the
    share `skew` of the teacher into the student.

    `cross_entropy` is the share of the next-token loss in the mix; `hidden` the weight of matching the teacher's hidden states through
    learned projectors. `top_k` trains on the teacher's `top_k` largest logits and the mass of all others, computed
    once for all students that read the same text. That mass cannot be tempered, so `temperature` must be 1. `teacher_devices` compute
    these logits together, each with the whole teacher and a part of the text; the logits are those of one.
    `on_policy` is the share of batches whose text the student writes itself, continuing the first `prompt` tokens of each sequence.

    `devices` train together, each with a part of the weights of student and teacher; `auto` takes as few as hold them. On a processor they
    are processes. Results differ in rounding alone, so the number is in no content key. Text that a student writes itself is drawn on one.
    `activation_checkpointing` computes activations again in the backward pass: less memory, a third more time, the same result.
    """

    method: Literal["forward-kl", "reverse-kl", "jsd", "skewed-kl"] = "forward-kl"
    teacher: str = "base"
    tokens: PositiveInt
    temperature: PositiveFloat = 1.0
    beta: Share = 0.5
    skew: Share = 0.1
    cross_entropy: float = Field(default=0.0, ge=0, lt=1)
    hidden: float = Field(default=0.0, ge=0)
    top_k: PositiveInt | None = None
    on_policy: float = Field(default=0.0, ge=0, le=1)
    prompt: PositiveInt = 64
    optimizer: Optimizer = Optimizer()
    seed: Seed = 0
    devices: Devices = 1
    teacher_devices: PositiveInt = Field(default=1, exclude=True)
    activation_checkpointing: ActivationCheckpointing = False

    @model_validator(mode="after")
    def _readable_settings(self) -> Distill:
        refuse_unread(self, {"beta": "jsd", "skew": "skewed-kl"})
        if self.top_k is not None and (self.hidden or self.on_policy):
            needs = "hidden" if self.hidden else "on_policy"
            raise ValueError(f"{needs} needs the teacher itself, and top_k replaces it by stored logits; drop one of the two")
        if self.top_k is not None and self.temperature != 1:
            # A sum of tempered probabilities is not the tempered sum: the gradient of the loss would point elsewhere.
            raise ValueError(
                "top_k stores the mass of all other tokens as one event, "
                f"which temperature {self.temperature:g} would temper as one token; take temperature: 1, or drop top_k"
            )
        if self.teacher_devices > 1 and self.top_k is None:
            raise ValueError("teacher_devices: without top_k there are no stored logits to compute; leave it out, or set top_k")
        refuse_undivided(self.devices, undivided(self))
        return self


def undivided(config: Distill) -> str:
    """Why several devices cannot make a step together; empty if they can."""
    if config.on_policy:
        return "what a student writes is drawn token by token on one device; take devices: 1, or drop on_policy"
    return undivided_states(config.optimizer)


def distill_warnings(config: Distill) -> Iterator[str]:
    """What is lost of a divergence that stored logits hardly contain."""
    if config.top_k is not None and config.method == "reverse-kl":
        yield (
            f"reverse-kl with top_k: {config.top_k} sees as one event all tokens but the teacher's {config.top_k} largest, and with them "
            "most of what it penalises: tokens that the student likes and the teacher does not; drop top_k, or take another method"
        )


def distill_cost(config: Distill, model: Footprint) -> Cost:
    """Cost of a step. Without stored logits the teacher adds a forward pass, and its weights are in memory."""
    teacher = 0 if config.top_k is not None else 1
    seconds = config.tokens * (FORWARDS_A_STEP + config.activation_checkpointing + teacher) * model.forward
    return Cost(seconds, training_memory(model, config.optimizer) + teacher * model.weights)


FORWARD_KL, REVERSE_KL, JSD, SKEWED_KL = (
    Method(
        "distill",
        name,
        Distill,
        "compresslab.steps.distill",
        "training",
        trains=True,
        cost=distill_cost,
        undivided=undivided,
        warnings=distill_warnings,
    )
    for name in ("forward-kl", "reverse-kl", "jsd", "skewed-kl")
)
