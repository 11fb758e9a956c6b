"""Settings that all methods share: strict models that refuse unknown keys, and AdamW's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

NonEmptyText = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the range that both numpy and torch accept
Share = Annotated[float, Field(gt=0, lt=1)]
# The value of `until` that names the model before the last prune step.
PARENT = "parent"


class Strict(BaseModel):
    """A model that refuses unknown keys, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepConfig(Strict):
    """The settings of a step. A subclass has a field `method: Literal[...]` with the names of the methods that it serves.

    Fields of these names mean the same in every method: `tokens` (of training text), `teacher` or `until` (another model, which counts
    by its content and not by its name), `seed`.
    """

    @property
    def method_name(self) -> str:
        """The method within its kind, as the registry names it."""
        return str(getattr(self, "method", "model"))  # adopting alone has no choice of methods

    @property
    def other_variant(self) -> str | None:
        """The name of the other variant that the step needs, if any: its teacher, or the variant whose loss it trains until."""
        until = getattr(self, "until", None)
        return getattr(self, "teacher", until if until != PARENT else None)

    @property
    def training_tokens(self) -> int:
        """Number of tokens of training text that the step reads; 0 if it does not train."""
        return int(getattr(self, "tokens", 0))

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages beyond its method's that a setting needs and whose version decides the result."""
        optimizer = getattr(self, "optimizer", None)
        return ("bitsandbytes",) if optimizer is not None and optimizer.state_bits == 8 else ()


def both_or_neither(given: object) -> str:
    """The message for two settings of which exactly one must be given, from the value of one of them."""
    return "neither is given" if given is None else "both are given"


def refuse_unread(config: StepConfig, readers: dict[str, str]) -> None:
    """Refuse a setting that only another method reads, unless it has its default.

    Args:
        readers: the name of the method that reads a setting, by the name of the setting.

    Raises:
        ValueError: pydantic reports it at the step's place.
    """
    method = config.method_name
    for name, reader in readers.items():
        if method != reader and getattr(config, name) != type(config).model_fields[name].default:
            raise ValueError(f"{name} is a setting of {reader}, and {method} does not read it; leave it out")


class Optimizer(Strict):
    """AdamW with linear warm-up, then a constant phase and a linear decay to zero (`wsd`), or a cosine to zero; shares are of all steps.

    `weight_decay` shrinks matrices; norms, biases and embeddings, a tied output head among them, do not decay.

    `state_bits: 8` keeps the two moments of AdamW in 8 bits (bitsandbytes): 2 bytes a weight and not 8, at other rounding, on one device.
    """

    learning_rate: PositiveFloat = 3e-4
    schedule: Literal["wsd", "cosine"] = "wsd"
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    decay: float = Field(default=0.3, ge=0, le=1)
    batch_tokens: PositiveInt = 2048
    micro_batch_tokens: PositiveInt = 2048
    max_grad_norm: PositiveFloat = 1.0
    state_bits: Literal[8, 32] = 32

    @model_validator(mode="after")
    def _phases_fit(self) -> Optimizer:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} add up to more than the whole run (1); lower one of them")
        return self
