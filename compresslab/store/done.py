"""What of a plan the store holds, and what a run has to make."""

from __future__ import annotations

from compresslab.plan.graph import Node, NodeKind, Plan
from compresslab.records import Failure, MachineSpeed, StepRecord, StoredRecord, TaskScore, TextDivergence, Timing
from compresslab.store.store import Store

# What a node's record is; what is gathered has none.
RECORDS: dict[NodeKind, type[StoredRecord] | None] = {
    "model": StepRecord,
    "evaluate": TaskScore,
    "measure": Timing,
    "fidelity": TextDivergence,
    "machine": MachineSpeed,
    "gather": None,
}


def results(node: Node) -> dict[str, type[StoredRecord] | None]:
    """The keys of a node's results, each with the kind of its record; an evaluation is its tasks' scores."""
    return dict.fromkeys(node.tasks.values() if node.kind == "evaluate" else (node.key,), RECORDS[node.kind])


def is_done(node: Node, store: Store) -> bool:
    """Whether the store holds a node's results. One that is damaged or of another version counts as not there."""
    if node.copied and store.refers(node.key):
        return False
    return all(store.holds(key, kind) for key, kind in results(node).items())


NOT_RUN = "has not run yet"


def why_missing(node: Node, store: Store) -> str:
    """Why the store does not hold a node's results, in a sentence."""
    for key, kind in results(node).items():
        if store.occupied(key) and (problem := store.problem(key, kind)):
            return f"its result in the store cannot be used ({problem}); a run makes it again"
    return NOT_RUN


def missing(node: Node, store: Store) -> Failure:
    """What a study's record says of a node without results that no run has tried: that it is pending, or that its result is unusable."""
    cause = why_missing(node, store)
    return Failure(node=node.label, cause=cause, pending=cause == NOT_RUN)


def to_do(plan: Plan, store: Store) -> list[Node]:
    """The nodes that a run has to make. What several steps share is made only if one of those steps is still to be made."""
    lacking = [node for node in plan.nodes if not is_done(node, store)]
    wanted = {node.gathered for node in lacking}
    return [node for node in lacking if node.kind != "gather" or node.key in wanted]
