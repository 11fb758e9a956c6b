"""Builds a reference from evaluated models: the base and the adopted models of a recipe, each with its training tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compresslab.errors import BadInput
from compresslab.methods.adopt import Adopt
from compresslab.plan.graph import Plan
from compresslab.records import StepRecord, TaskScore
from compresslab.store.done import is_done
from compresslab.store.store import Store


def check(plan: Plan) -> dict[str, float]:
    """Training tokens of the base and of every variant. Each variant must be one adopted model.

    Raises:
        BadInput: a model without `train_tokens`, or a variant that is no adopted model.
    """
    recipe = plan.recipe
    tokens_by_model, missing = {"base": recipe.base.train_tokens}, [] if recipe.base.train_tokens else ["base"]
    for name, variant in recipe.variants.items():
        config = variant.steps[-1].config
        if len(variant.steps) != 1 or not isinstance(config, Adopt):
            raise BadInput(f"variants.{name}: a reference is built from models as they are; make it one adopt step")
        tokens_by_model[name] = config.train_tokens
        missing += [] if config.train_tokens else [f"variants.{name}, adopt"]
    if missing:
        raise BadInput(f"how many tokens was each model trained on? `train_tokens` is missing in: {', '.join(missing)}")
    return {name: tokens for name, tokens in tokens_by_model.items() if tokens is not None}


def rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    """One row per model and task, in the form of `density.references.user.fit_table`. The plan must have run.

    Raises:
        BadInput: a model that failed.
    """
    for name, tokens in check(plan).items():
        variant = plan.variant(name)
        node = plan.node(variant.evaluate)
        model = store.find(variant.model, StepRecord)
        if model is None or not is_done(node, store):
            raise BadInput(f"{name} has no scores; the reference needs all its models")
        size = model.size
        for key in node.tasks.values():
            score = store.read(key, TaskScore)
            yield {
                "run": name,
                "size": str(size.counted),
                "params": size.counted,
                "tokens": tokens,
                "task": score.task,
                "bpb": score.bits_per_byte,
                "score": score.accuracy,
                "chance": score.chance,
            }
