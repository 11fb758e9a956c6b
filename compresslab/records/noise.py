"""What doing the same thing twice changes, beside what a step changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compresslab.records.base import Record
from compresslab.records.densities import Interval

Quantity = Literal["accuracy", "bits per byte", "ln density"]
AnswerDifference = Literal["KL of options", "answers changed"]

# Figures of replicates that differ by less are equal: the order of a sum changes the last digits of a mean.
ROUNDING = 1e-12


class NoiseFloor(Record):
    """A difference of a replicated variant from another model, beside the difference of two runs of the same step.

    Attributes:
        against: the other model. relation: that it is the variant's parent, the base of all, or a sibling (a variant with the same parent
            and replicates of its own).
        task: "" for the mean over the tasks that all of them answered. items: those that all of them were asked alike.
        values: of each replicate, the variant's own first. others: of the other model, or of each of its replicates. Both of the quantity
            itself; of ln density against parent and base they are ln r of each replicate, and 0.
        effect: mean of `values` less mean of `others`.
        degrees: of freedom of the standard deviation s between replicates; of two replicated variants, both together.
        twice: sqrt(2) s, the standard deviation of the difference of two runs of the same step, with its 95% interval (chi-square).
            `None` if all replicates are equal in this quantity, but for `ROUNDING`, which then has no floor.
        floor: with 95% probability `effect` is no larger than this if the other model is but a further run of the same step:
            t(0.975, degrees) s sqrt(1 / values + 1 / others).
    """

    against: str
    relation: Literal["parent", "root", "sibling"]
    quantity: Quantity
    task: str
    items: int
    values: list[float]
    others: list[float]
    effect: float
    degrees: int
    twice: Interval | None
    floor: float | None

    @property
    def larger(self) -> bool | None:
        """Whether the difference is larger than the noise floor; `None` without a floor."""
        return None if self.floor is None else abs(self.effect) > self.floor


class DivergenceFloor(Record):
    """How far the replicates of a step answer from their parent, beside how far they answer from one another, on stored answers.

    A divergence is never below 0, so it has no difference from another run to be held against: the divergence of two runs is its floor.

    Attributes:
        task, items: as in `NoiseFloor`.
        to_parent: of each replicate from the parent, the variant's own first: KL(parent || replicate) in nats an item, or the share of
            items with another answer. between: of each ordered pair of replicates, likewise.
    """

    against: str
    quantity: AnswerDifference
    task: str
    items: int
    to_parent: list[float]
    between: list[float]

    @property
    def larger(self) -> bool | None:
        """Whether each replicate is farther from the parent than any two replicates are from one another; `None` if these are all equal."""
        return None if max(self.between) <= ROUNDING else min(self.to_parent) > max(self.between)

    @property
    def chance(self) -> float:
        """How often, at most, it is larger if the parent is but a further run of the same step.

        Of k + 1 runs that could be exchanged, no more than one lies so far from all others.
        """
        return 1 / (len(self.to_parent) + 1)


class Noise(Record):
    """The noise floors of a replicated variant. `differences`: against parent, base and siblings. `divergences`: from the parent."""

    differences: list[NoiseFloor] = Field(default_factory=list)
    divergences: list[DivergenceFloor] = Field(default_factory=list)
