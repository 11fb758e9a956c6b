"""Unstructured and semi-structured pruning: weights become zero, and matrices keep their shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Objection
from compresslab.methods.method import Method, in_place, solved
from compresslab.methods.settings import StepConfig, both_or_neither, refuse_unread


class PruneSparse(StepConfig):
    """Set weights of the linear layers to zero: the share `sparsity`, or all but some of each few neighbours (`pattern`, such as 2:4).

    `magnitude` looks at the weights alone, `wanda` also at how large the inputs are, `sparsegpt` corrects the weights that stay
    (`damping` is its share of the mean curvature). Matrices keep their shape, later training keeps the zeros.
    """

    method: Literal["magnitude", "wanda", "sparsegpt"]
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    pattern: (
        Annotated[str, Field(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$", description="two numbers such as 2:4: kept, of how many")] | None
    ) = None
    damping: PositiveFloat = 0.01

    @model_validator(mode="after")
    def _one_measure(self) -> PruneSparse:
        refuse_unread(self, {"damping": "sparsegpt"})
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError(
                f"{both_or_neither(self.pattern)}; set exactly one of sparsity (a share, such as 0.5) and pattern (such as 2:4)"
            )
        if self.of is not None and self.of[0] >= self.of[1]:
            raise ValueError(f"pattern {self.pattern} drops nothing; the first number (kept) must be below the second")
        return self

    @property
    def of(self) -> tuple[int, int] | None:
        """The pattern as numbers: kept, of how many."""
        if self.pattern is None:
            return None
        keep, of = self.pattern.split(":")
        return int(keep), int(of)

    @property
    def share(self) -> float:
        """The share of weights that go."""
        return self.sparsity if self.of is None and self.sparsity is not None else 1 - (self.of or (0, 1))[0] / (self.of or (0, 1))[1]


def undivided(config: PruneSparse, model: Dimensions) -> list[Objection]:
    """A pattern must divide the inputs of every layer."""
    if config.of is None:
        return []
    bad = [f"the {name} {width}" for name, width in model.input_widths.items() if width % config.of[1]]
    reason = f"{config.pattern} does not divide {' and '.join(bad)}; take a pattern that does, or a sparsity"
    return [Objection("pattern", reason)] if bad else []


MODULE = "compresslab.steps.prune_sparse"
MAGNITUDE = Method("prune", "magnitude", PruneSparse, MODULE, cost=in_place, objections=undivided)
WANDA = Method("prune", "wanda", PruneSparse, MODULE, "calibration", "activations", cost=in_place, objections=undivided)
SPARSEGPT = Method("prune", "sparsegpt", PruneSparse, MODULE, "calibration", "grams", cost=solved, objections=undivided)
