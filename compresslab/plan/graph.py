"""The plan itself: frozen nodes in an order in which they can run, and the variants that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.settings import StepConfig
from compresslab.recipe.load import NO_FILE, RecipeFile
from compresslab.recipe.schema import Recipe
from compresslab.records.compute import PROCESSOR, Compute, Probe

NodeKind = Literal["machine", "gather", "model", "evaluate", "measure"]
Gathered = Literal["activations", "grams", "removals", "logits"]
GATHERING = {
    "activations": "calibrate",
    "grams": "calibrate",
    "removals": "order the layers of",
    "logits": "store the logits of",
}


@dataclass(frozen=True)
class Node:
    """One unit of work with one result in the store.

    Attributes:
        kind: "model" makes a variant's folder, "evaluate" its scores, "measure" its times, "machine" this machine's speed, "gather" what
            several steps read of one model: its statistics on the calibration text, or its logits on the training text.
        variant: the variant that it belongs to; of several that share it, the first. Empty for "machine".
        key: content key, the name of its result in the store.
        needs: keys of the nodes whose results it reads, the parent's model first.
        step: for model nodes past the base: kind and config. other: key of the model that it looks at (its teacher, say).
        gathered: key of the gather node that it reads.
        gathers: what a gather node gathers. readers: the steps that read it.
        tasks: for evaluate nodes: task name -> content key of its scores.
        facts: what is known of the model before it exists.
    """

    kind: NodeKind
    variant: str
    key: str
    needs: tuple[str, ...] = ()
    step: tuple[str, StepConfig] | None = None
    other: str | None = None
    gathered: str | None = None
    gathers: Gathered | None = None
    readers: tuple[StepConfig, ...] = ()
    tasks: dict[str, str] = field(default_factory=dict)
    facts: Dimensions | None = None

    @property
    def label(self) -> str:
        """What the node does, for a progress line or a message."""
        if self.kind == "machine":
            return "measure this machine"
        if self.kind == "model":
            what = "load" if self.step is None else self.step[0]
            return f"{what} {self.variant}"
        if self.gathers is not None:
            return f"{GATHERING[self.gathers]} {self.variant}"
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

    @property
    def keys(self) -> dict[str, str]:
        """Keys of what is known of it, by kind of node."""
        return {"model": self.model, "evaluate": self.evaluate} | ({"measure": self.measure} if self.measure else {})


@dataclass(frozen=True)
class Plan:
    """A recipe as a graph.

    Attributes:
        nodes: in an order in which each comes after what it needs.
        file: the recipe's file as it was read. changes: those of the command line, as comments above the recipe's text.
        compute: what everything multiplies in, and on what.
        probe: what the machine was found to reach. machine: its name. machine_facts: what decides times on it. A study of published
            scores has none of these.
    """

    recipe: Recipe
    nodes: tuple[Node, ...]
    variants: tuple[PlanVariant, ...]
    warnings: tuple[str, ...] = ()
    file: RecipeFile = NO_FILE
    changes: str = ""
    compute: Compute = PROCESSOR
    probe: Probe | None = None
    machine: str = ""
    machine_facts: dict[str, Any] = field(default_factory=dict)

    def node(self, key: str) -> Node:
        """The node with this key."""
        return next(node for node in self.nodes if node.key == key)

    def variant(self, name: str) -> PlanVariant:
        """The variant with this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def of_kind(self, kind: NodeKind) -> Iterator[Node]:
        """All nodes of a kind, in order."""
        return (node for node in self.nodes if node.kind == kind)
