"""A step of a recipe: one kind, and the settings of one of its methods. The settings themselves stand in `methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, model_validator

from compresslab.methods.adopt import Adopt
from compresslab.methods.choice import choice_of
from compresslab.methods.method import Method
from compresslab.methods.registry import method_of, methods_of
from compresslab.methods.settings import StepConfig, Strict

# The name of the model that every variant starts from.
BASE = "base"
STEP_KINDS = ("prune", "distill", "quantize", "retrain", "adopt")
# More runs of one step cost more than they tell: at 20 the interval's factor (Student's t) is within 7% of that of any number.
MOST_REPLICATES = 20
LARGEST_SEED = 2**32 - 1


if TYPE_CHECKING:
    Prune: TypeAlias = StepConfig
    Distill: TypeAlias = StepConfig
    Quantize: TypeAlias = StepConfig
    Retrain: TypeAlias = StepConfig
else:
    Prune, Distill, Quantize, Retrain = (choice_of(methods_of(kind)) for kind in ("prune", "distill", "quantize", "retrain"))


class Step(Strict):
    """One step: exactly one of the kinds. `replicates` stands beside it, as in `{distill: {tokens: 60_000}, replicates: 3}`.

    With `replicates`, the step and those after it in the variant are made so many times, and each is evaluated. Each further replicate
    adds 1 to the step's own seed, if it has one, and to the seed of the text that it reads. The first is the variant itself: other
    variants go on from it. r is then the mean over the replicates, and their spread decides how sure it is. Two leave the interval very
    wide; take three or more. A step that reads no text is the same each time and takes no replicates. A variant has one such step.
    """

    prune: Prune | None = None
    distill: Distill | None = None
    quantize: Quantize | None = None
    retrain: Retrain | None = None
    adopt: Adopt | None = None
    replicates: Annotated[int, Field(ge=1, le=MOST_REPLICATES)] = 1

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        given = [kind for kind in STEP_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(STEP_KINDS)}; this one has {' and '.join(given) or 'none'}")
        return self

    @model_validator(mode="after")
    def _replicates_differ(self) -> Step:
        given = [kind for kind in STEP_KINDS if getattr(self, kind) is not None]
        if self.replicates == 1 or len(given) != 1:
            return self
        if self.kind == "adopt":
            raise ValueError("an adopted model is taken as it is, so every replicate would be the same; leave replicates out")
        if self.method.text is None:
            name = f"{self.kind} {self.method.name}"
            raise ValueError(f"{name} reads no text and draws nothing, so every replicate would be the same; leave replicates out")
        if getattr(self.config, "seed", 0) + self.replicates - 1 > LARGEST_SEED:
            raise ValueError(f"the seeds of {self.replicates} replicates go beyond {LARGEST_SEED}; lower seed")
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
