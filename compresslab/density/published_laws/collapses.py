"""Warns before a run where a published law says that a setting collapses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from compresslab.density.published_laws import precision, pruning
from compresslab.methods.adopt import Adopt
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.sparse import PruneSparse
from compresslab.recipe.order import ordered
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE, Step

COLLAPSED = 0.1
"""The predicted ratio of sizes from which on rounding is a collapse: a model of a tenth of the size has as low a loss. At 16 bits it stores
1.6 bits for each parameter of the large one, less than any width that a recipe can name, so it is smaller as well as better."""


def collapses(recipe: Recipe, dimensions: Mapping[str, Sequence[Dimensions | None]]) -> Iterator[str]:
    """One sentence for each step for which a law with known coefficients predicts a collapse.

    Nothing is said where the parameters or the training tokens are not known, of rounding a mixture of experts or a model larger than those
    that the law was checked on, and of pruning that training follows.

    Args:
        dimensions: of each variant after each of its steps, and of the base.
    """
    # By variant the tokens and the dimensions of the model that its chain starts from.
    origins: dict[str, tuple[float | None, Dimensions | None]] = {BASE: (recipe.base.train_tokens, dimensions[BASE][-1])}
    for name in ordered(recipe):
        variant = recipe.variants[name]
        before, (tokens, whole) = dimensions[variant.start][-1], origins[variant.start]
        for number, step in enumerate(variant.steps):
            after = dimensions[name][number]
            if isinstance(step.config, Adopt):
                tokens, whole = step.config.train_tokens, after
            elif step.kind == "quantize" and before is not None and tokens and not _mixture(before):
                yield from _rounding(name, step, before, tokens)
            elif step.kind == "prune" and not _trained_after(recipe, name, number):
                yield from _pruning(name, step, whole, after)
            before = after
        origins[name] = tokens, whole


def _trained_after(recipe: Recipe, name: str, number: int) -> bool:
    """Whether a step that trains follows a step of a variant, in the variant itself or in one that goes on from it."""
    later = recipe.variants[name].steps[number + 1 :]
    onward = (other for other, variant in recipe.variants.items() if variant.start == name)
    return any(step.method.trains for step in later) or any(_trained_after(recipe, other, -1) for other in onward)


def _rounding(name: str, step: Step, before: Dimensions, tokens: float) -> Iterator[str]:
    entry, law = step.method, precision.LAW
    if entry.packing is None:
        return
    bits, params = entry.packing(step.config).bits, _layers(before)
    # The least that the law predicts, since its source leaves a factor open.
    added = precision.degradation(params, tokens, bits) / math.exp(precision.OFFSET)
    ratio = precision.size_ratio(params, tokens, added, None)
    if ratio > COLLAPSED or params > precision.VALIDATED:
        return
    outside = law.outside(params=params, tokens=tokens, bits=bits)
    reach = f" Outside the law's fit: {', '.join(outside)}." if outside else ""
    yield (
        f"variants.{name}, quantize: {law.reference} predict at least {added:.2g} nats a token more at {bits} bits, the loss of a model of "
        f"{ratio:.1%} of the size on as many tokens.{reach}"
    )


def _pruning(name: str, step: Step, whole: Dimensions | None, after: Dimensions | None) -> Iterator[str]:
    removed = _removed(step, whole, after)
    if removed is None or removed < pruning.COLLAPSE:
        return
    yield (
        f"variants.{name}, prune: {removed:.0%} of the weights go and no training follows; {pruning.LAW.reference} find that models of "
        f"every size collapse from {pruning.COLLAPSE:.0%} on."
    )


def _removed(step: Step, whole: Dimensions | None, after: Dimensions | None) -> float | None:
    """The share of a layer's weights that a step sets to zero, or of all layers' that a chain has cut; `None` where it is not known."""
    if isinstance(step.config, PruneSparse):
        return step.config.dropped_share
    if whole is None or after is None:
        return None
    return 1 - _layers(after) / _layers(whole)


def _layers(model: Dimensions) -> int:
    """The parameters of all layers, which are nearly all that are not in the embedding."""
    return model.layers * model.layer_parameters


def _mixture(model: Dimensions) -> bool:
    """Whether a layer has more than one MLP, which has three matrices."""
    return model.mlp_parameters > 3 * model.hidden * model.intermediate
