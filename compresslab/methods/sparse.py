"""Unstructured and semi-structured pruning: weights become zero, matrices keep their shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Objection
from compresslab.methods.method import Method, Zeros, in_place_cost, solver_cost
from compresslab.methods.settings import Share, StepConfig, both_or_neither, refuse_unread


class PruneSparse(StepConfig):
    """Set weights of the linear layers to zero: the share `sparsity`, or all but some of each few neighbours (`pattern`, such as 2:4).

    `magnitude` looks at the weights alone, `wanda` also at how large the inputs are, `sparsegpt` corrects the weights that stay
    (`damping` is its share of the mean curvature). Matrices keep their shape, later training keeps the zeros.
    """

    method: Literal["magnitude", "wanda", "sparsegpt"]
    sparsity: Share | None = None
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
        if self.pattern_numbers is not None and self.pattern_numbers[0] >= self.pattern_numbers[1]:
            raise ValueError(f"pattern {self.pattern} drops nothing; the first number (kept) must be below the second")
        return self

    @property
    def pattern_numbers(self) -> tuple[int, int] | None:
        """The two numbers of the pattern: how many weights stay, of how many."""
        if self.pattern is None:
            return None
        keep, of = self.pattern.split(":")
        return int(keep), int(of)

    @property
    def dropped_share(self) -> float:
        """The share of weights that become zero."""
        if self.pattern_numbers is None:
            assert self.sparsity is not None
            return self.sparsity
        keep, of = self.pattern_numbers
        return 1 - keep / of


def pattern_objections(config: PruneSparse, model: Dimensions) -> list[Objection]:
    """A pattern must divide the inputs of every layer."""
    if config.pattern_numbers is None:
        return []
    indivisible = [f"the {name} {width}" for name, width in model.input_widths.items() if width % config.pattern_numbers[1]]
    reason = f"{config.pattern} does not divide {' and '.join(indivisible)}; take a pattern that does, or a sparsity"
    return [Objection("pattern", reason)] if indivisible else []


def zeros(config: PruneSparse) -> Zeros:
    """Wanda compares weights within a row, the others within a matrix (SparseGPT in blocks of columns). SparseGPT changes what stays."""
    within: Literal["row", "matrix"] = "row" if config.method == "wanda" else "matrix"
    return Zeros(config.dropped_share, within, config.pattern_numbers, masks=config.method != "sparsegpt")


MODULE = "compresslab.steps.prune_sparse"
MAGNITUDE = Method(
    "prune",
    "magnitude",
    PruneSparse,
    MODULE,
    layerwise=True,
    ends_stay=True,
    linears_alone=True,
    plain_linears=True,
    zeros=zeros,
    cost=in_place_cost,
    objections=pattern_objections,
)
WANDA = replace(MAGNITUDE, name="wanda", text="calibration", statistics="activations")
SPARSEGPT = replace(WANDA, name="sparsegpt", statistics="grams", cost=solver_cost)
