"""Evaluates a stored variant on a task again, to check that its folder still gives the stored scores."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.recipe.source import parse_source
from compresslab.records import ItemScores, TaskScore
from compresslab.store.store import Store

# Maximum changes by rounding on another machine. On the same machine a bfloat16 model changes nothing.
MAX_MEAN_BITS, MAX_CHANGED_CHOICES = 0.01, 0.02


class Rescored(NamedTuple):
    """Changes of a task's results.

    Attributes:
        bits: mean change of bits-per-byte. largest: the largest absolute change of an item. choices: share of items with another answer.
    """

    task: str
    items: int
    bits: float
    largest: float
    choices: float

    @property
    def holds(self) -> bool:
        """Whether the changes are small enough for rounding."""
        return abs(self.bits) <= MAX_MEAN_BITS and self.choices <= MAX_CHANGED_CHOICES


def rescore(plan: Plan, store: Store, variant: str) -> Rescored:
    """Evaluate the model folder of a variant on all items of its shortest task.

    Raises:
        BadInput: the variant has no stored model or scores.
    """
    node = plan.node(plan.variant(variant).evaluate)
    scored = {task: score for task, key in node.tasks.items() if (score := store.find(key, TaskScore))}
    if not scored or not store.has(plan.variant(variant).model):
        raise BadInput(f"{variant} has not been made and evaluated in {store.root}, so there is nothing to verify it against")
    # After the check: they import torch.
    from compresslab.evaluation.backends import load_lm
    from compresslab.evaluation.harness import evaluate_model
    from compresslab.evaluation.scores import read_items
    from compresslab.models.own_code import run_own_code

    task = min(scored, key=lambda name: scored[name].items)
    base = plan.recipe.base
    if base.trust_remote_code:
        run_own_code(parse_source(base.model))
    lm, weights = load_lm(store.model(plan.variant(variant).model), plan.recipe.evaluate, plan.compute, encodings=store.encodings)
    [(_, current)] = evaluate_model(lm, [task], plan.recipe.evaluate, weights=weights)
    return compare_answers(read_items(store.folder(node.tasks[task]) / "items.parquet"), current)


def compare_answers(stored: ItemScores, current: ItemScores) -> Rescored:
    """The changes between two sets of results on the same items."""
    if stored.item != current.item:
        raise BadInput(f"{current.task} has other items than when it was stored; the task's data or lm-eval have changed")
    changes = [b - a for a, b in zip(stored.bits_per_byte or [], current.bits_per_byte or [], strict=True)]
    before, after = (zip(items.choice, items.correct, strict=True) for items in (stored, current))
    differ = sum(a != b for a, b in zip(before, after, strict=True))
    mean = sum(changes) / len(changes) if changes else 0.0
    return Rescored(current.task, len(current.item), mean, max(map(abs, changes), default=0.0), differ / len(current.item))
