"""A step of a recipe: one kind, and the settings of one of its methods. The settings themselves stand in `methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import model_validator

from compresslab.methods.adopt import Adopt
from compresslab.methods.choice import choice_of
from compresslab.methods.method import Method
from compresslab.methods.registry import method_of, methods_of
from compresslab.methods.settings import StepConfig, Strict

# The name of the model that every variant starts from.
BASE = "base"
STEP_KINDS = ("prune", "distill", "quantize", "retrain", "adopt")


if TYPE_CHECKING:
    Prune: TypeAlias = StepConfig
    Distill: TypeAlias = StepConfig
    Quantize: TypeAlias = StepConfig
    Retrain: TypeAlias = StepConfig
else:
    Prune, Distill, Quantize, Retrain = (choice_of(methods_of(kind)) for kind in ("prune", "distill", "quantize", "retrain"))


class Step(Strict):
    """One step: exactly one of the kinds."""

    prune: Prune | None = None
    distill: Distill | None = None
    quantize: Quantize | None = None
    retrain: Retrain | None = None
    adopt: Adopt | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        given = [kind for kind in STEP_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(STEP_KINDS)}; this one has {' and '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds this step is."""
        return next(kind for kind in STEP_KINDS if getattr(self, kind) is not None)

    @property
    def config(self) -> StepConfig:
        """The configuration of the step's kind."""
        config: StepConfig = getattr(self, self.kind)
        return config

    @property
    def method(self) -> Method[Any]:
        """What is known of the step's method."""
        return method_of(self.kind, self.config)

    @property
    def other_variant(self) -> str | None:
        """The name of the other model that the step needs, if any: its teacher, or the one whose loss it trains until."""
        return self.config.other_variant
