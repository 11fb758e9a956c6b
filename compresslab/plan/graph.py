"""The plan: frozen nodes in an order in which they can run, and the variants that they produce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.settings import StepConfig
from compresslab.recipe.load import NO_FILE, RecipeFile
from compresslab.recipe.schema import Recipe
from compresslab.records.compute import PROCESSOR, Compute, Probe

NodeKind = Literal["machine", "gather", "model", "evaluate", "measure", "fidelity"]
Gathered = Literal["activations", "grams", "removals", "logits"]
GATHER_LABELS = {
    "activations": "calibrate",
    "grams": "calibrate",
    "removals": "order the layers of",
    "logits": "store the logits of",
}


@dataclass(frozen=True)
class Node:
    """One unit of work with one result in the store.

    Attributes:
        kind: the result: "model" a variant's folder, "evaluate" its scores, "measure" its times, "fidelity" how far
            it is from its parent on a text, "machine" this machine's speed, "gather" a
            model's statistics on the calibration text or its logits on the training text, which several steps read.
        variant: the variant that it belongs to, the first one if several share it. Empty for "machine".
        key: content key, the name of its result in the store.
        needs: keys of the nodes whose results it reads, the parent's model first.
        step: kind and config, for model nodes after the base. other: key of the other model that the step reads, such as its teacher.
        gathered: key of the gather node that it reads.
        gathers: the data that a gather node gathers. readers: settings of the steps that read it.
        tasks: task name -> content key of its scores, for evaluate nodes.
        dimensions: dimensions of the model, if they are known before it exists.
        copied: whether the store must keep a copy of an existing model, and not refer to its folder.
        replicate: what is added to the seeds of the recipe's texts for this node: 0, or the number of the replicate that reads them.
        top_ks: for fidelity nodes, the numbers of a teacher's largest logits that the steps of the model's chain read.
        devices: how many make it together; on a processor, how many processes.
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
    dimensions: Dimensions | None = None
    replicate: int = 0
    copied: bool = False
    top_ks: tuple[int, ...] = ()
    devices: int = 1

    @property
    def timed(self) -> bool:
        """Whether it measures times, which needs a machine to itself."""
        return self.kind in ("machine", "measure")

    @property
    def label(self) -> str:
        """The action of the node, for a progress line or a message."""
        if self.kind == "machine":
            return "measure this machine"
        if self.kind == "model":
            what = "load" if self.step is None else self.step[0]
            return f"{what} {self.variant}"
        if self.gathers is not None:
            return f"{GATHER_LABELS[self.gathers]} {self.variant}"
        if self.kind == "fidelity":
            return f"compare {self.variant} with its parent"
        return f"{'evaluate' if self.kind == 'evaluate' else 'time'} {self.variant}"


@dataclass(frozen=True)
class PlanVariant:
    """A variant: the keys of its model nodes from the base to its own, of its scores, of its times, and of its comparison with its parent.

    Attributes:
        replicates: names of the variants that differ from it in the seeds of one step alone, without its own.
        replicated: key of that step in its own chain; empty without replicates.
        replicate_of: the variant of which it is a replicate; empty for any other.
    """

    name: str
    parent: str
    named: bool
    chain: tuple[str, ...]
    evaluate: str
    measure: str | None
    fidelity: str | None = None
    replicates: tuple[str, ...] = ()
    replicated: str = ""
    replicate_of: str = ""

    @property
    def model(self) -> str:
        """Key of the variant's own model node."""
        return self.chain[-1]

    @property
    def keys(self) -> dict[str, str]:
        """Keys of the variant's nodes, by kind."""
        others = {"measure": self.measure, "fidelity": self.fidelity}
        return {"model": self.model, "evaluate": self.evaluate} | {kind: key for kind, key in others.items() if key}


@dataclass(frozen=True)
class Plan:
    """A recipe as a graph.

    Attributes:
        nodes: in an order in which each comes after those that it needs.
        file: the recipe's file as it was read. changes: changes of the command line, as comments above the recipe's text.
        compute: dtype and backend of all computations.
        probe: the measured rates of the machine. machine: its name. machine_facts: the facts that decide times on it. A study of
            published scores has none of these.
        trust_code: whether programs of the model run without a sandbox.
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
    trust_code: bool = False

    def node(self, key: str) -> Node:
        """The node with this key."""
        return next(node for node in self.nodes if node.key == key)

    def variant(self, name: str) -> PlanVariant:
        """The variant with this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def of_kind(self, kind: NodeKind) -> Iterator[Node]:
        """All nodes of a kind, in order."""
        return (node for node in self.nodes if node.kind == kind)
