"""Replicates: a step of a variant made several times, each time with other seeds, and the steps after it on each result."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.recipe.schema import Recipe, Text, Variant
from compresslab.recipe.steps import LARGEST_SEED, Step


class Replicate(NamedTuple):
    """A further replicate: the variant, the index of its replicated step, and what is added to the seeds (1 for the second replicate)."""

    of: str
    step: int
    number: int


def with_replicates(recipe: Recipe) -> tuple[Recipe, dict[str, Replicate]]:
    """The recipe with a variant for each further replicate, and what these are, by name.

    The second replicate of `healed` is `healed~2`: no name of a recipe contains `~`. The first is the variant itself.
    """
    variants: dict[str, Variant] = {}
    replicates: dict[str, Replicate] = {}
    for name, variant in recipe.variants.items():
        variants[name] = variant
        for index, step in enumerate(variant.steps):
            for number in range(1, step.replicates):
                replicate = f"{name}~{number + 1}"
                steps = [*variant.steps[:index], _seeded(step, number), *variant.steps[index + 1 :]]
                variants[replicate] = variant.model_copy(update={"steps": steps})
                replicates[replicate] = Replicate(name, index, number)
    return recipe.model_copy(update={"variants": variants}), replicates


def _seeded(step: Step, number: int) -> Step:
    """The step with `number` added to its own seed, if it has one."""
    seed = getattr(step.config, "seed", None)
    if seed is None:
        return step
    return step.model_copy(update={step.kind: step.config.model_copy(update={"seed": seed + number})})


def with_text_seeds(recipe: Recipe, number: int) -> Recipe:
    """The recipe with `number` added to the seeds of its texts: they draw what is read of a text, and in which order."""
    if not number:
        return recipe
    texts = {role: text.model_copy(update={"seed": text.seed + number}) for role, text in recipe.text}
    return recipe.model_copy(update={"text": recipe.text.model_copy(update=texts)})


def seeds_beyond(step: Step, text: Text) -> str:
    """Why the seeds of the text that a step reads leave no room for its replicates; empty if they do."""
    role = step.method.text
    if step.replicates == 1 or role is None or getattr(text, role).seed + step.replicates - 1 <= LARGEST_SEED:
        return ""
    return f"the seeds of {step.replicates} replicates go beyond {LARGEST_SEED}; lower text.{role}.seed"
