"""Answering a task again with a variant that was evaluated before, to see whether its folder still gives the scores in the store."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.records import ItemScores, TaskScore
from compresslab.runner.store import Store

# What another machine's rounding may change. Of a bfloat16 model the same machine changes nothing.
MEAN_BITS, CHOICES = 0.01, 0.02


class Rescored(NamedTuple):
    """A task answered again.

    Attributes:
        bits: mean bits-per-byte now, less then. largest: the largest change of an item. choices: share of items answered otherwise.
    """

    task: str
    items: int
    bits: float
    largest: float
    choices: float

    @property
    def holds(self) -> bool:
        """Whether the scores are the stored ones but for rounding."""
        return abs(self.bits) <= MEAN_BITS and self.choices <= CHOICES


def rescore(plan: Plan, store: Store, variant: str) -> Rescored:
    """The variant's shortest task again, all of its items, from its folder.

    Raises:
        BadInput: nothing is stored of it.
    """
    from compresslab.evaluation.backends import load_lm
    from compresslab.evaluation.harness import evaluate_model
    from compresslab.evaluation.scores import read_items

    node = plan.node(plan.variant(variant).evaluate)
    scored = {task: score for task, key in node.tasks.items() if (score := store.find(key, TaskScore))}
    if not scored or not store.has(plan.variant(variant).model):
        raise BadInput(f"{variant} has not been made and evaluated in {store.root}, so there is nothing to verify it against")
    task = min(scored, key=lambda name: scored[name].items)
    lm, weights = load_lm(store.model(plan.variant(variant).model), plan.recipe.evaluate, plan.compute, encodings=store.encodings)
    [(_, now)] = evaluate_model(lm, [task], plan.recipe.evaluate, weights=weights)
    return compared(read_items(store.folder(node.tasks[task]) / "items.parquet"), now)


def compared(then: ItemScores, now: ItemScores) -> Rescored:
    """How far two sets of answers to the same items are apart."""
    if then.item != now.item:
        raise BadInput(f"{now.task} has other items than when it was stored; the task's data or lm-eval have changed")
    changes = [b - a for a, b in zip(then.bits_per_byte or [], now.bits_per_byte or [], strict=True)]
    differ = sum(
        a != b for a, b in zip(zip(then.choice, then.correct, strict=True), zip(now.choice, now.correct, strict=True), strict=True)
    )
    mean = sum(changes) / len(changes) if changes else 0.0
    return Rescored(now.task, len(now.item), mean, max(map(abs, changes), default=0.0), differ / len(now.item))
