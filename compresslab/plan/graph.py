"""The plan itself: frozen nodes in an order in which they can run, and the variants that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from compresslab.plan.facts import Facts
from compresslab.recipe.schema import Recipe, StepConfig

NodeKind = Literal["machine", "model", "evaluate", "measure"]


@dataclass(frozen=True)
class Node:
    """One unit of work with one result in the store.

    Attributes:
        kind: "model" makes a variant's folder, "evaluate" its scores, "measure" its times, "machine" this machine's speed.
        variant: the variant that it belongs to; of several that share it, the first. Empty for "machine".
        key: content key, the name of its result in the store.
        needs: keys of the nodes whose results it reads, the parent's model first.
        step: for model nodes past the base: kind and config. teacher: key of the teacher's model.
        tasks: for evaluate nodes: task name -> content key of its scores.
        facts: what is known of the model before it exists.
    """

    kind: NodeKind
    variant: str
    key: str
    needs: tuple[str, ...] = ()
    step: tuple[str, StepConfig] | None = None
    teacher: str | None = None
    tasks: dict[str, str] = field(default_factory=dict)
    facts: Facts | None = None

    @property
    def label(self) -> str:
        """What the node does, for a progress line or a message."""
        if self.kind == "machine":
            return "measure this machine"
        if self.kind == "model":
            what = "load" if self.step is None else self.step[0]
            return f"{what} {self.variant}"
        return f"{'evaluate' if self.kind == 'evaluate' else 'time'} {self.variant}"


@dataclass(frozen=True)
class PlanVariant:
    """A variant: the keys of its model nodes from the base to its own, and of what is known about it."""

    name: str
    parent: str
    named: bool
    chain: tuple[str, ...]
    evaluate: str
    measure: str | None

    @property
    def model(self) -> str:
        """Key of its own model node."""
        return self.chain[-1]


@dataclass(frozen=True)
class Plan:
    """A recipe as a graph. `nodes` are in an order in which each comes after what it needs."""

    recipe: Recipe
    nodes: tuple[Node, ...]
    variants: tuple[PlanVariant, ...]
    warnings: tuple[str, ...] = ()

    def node(self, key: str) -> Node:
        """The node with this key."""
        return next(node for node in self.nodes if node.key == key)

    def variant(self, name: str) -> PlanVariant:
        """The variant with this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def of_kind(self, kind: NodeKind) -> Iterator[Node]:
        """All nodes of a kind, in order."""
        return (node for node in self.nodes if node.kind == kind)
