"""Whether a training step changed the weights that it trains, and no others."""

from __future__ import annotations

from compresslab.recipe.stored_weights import Location
from compresslab.steps.outcome.held import Held
from compresslab.steps.training.sparsity import MARK

NOT_REACHED = "no gradient changed it"


def check_trained(held: Held) -> list[Location]:
    """Every decoder layer has a changed matrix, and zeros of pruning stay.

    Returns:
        Linear layers that are as they were: experts to which no token was routed, layers that another one's keys and values replace.
    """
    if held.parent is None or held.parent_skeleton is None:
        return []
    _check_zeros_stay(held)
    if held.tokens_seen == 0:  # the goal was reached before the first step
        return []
    same = {location: held.matrices[location].equal for location in held.matrices}
    _check_layers_changed(held, f"weights trained on {held.tokens_seen:,} tokens", same)
    return [location for location, equal in same.items() if equal and not held.excuse(location)]


def check_changed(held: Held) -> None:
    """That a method which rounds weights and leaves them plain has changed every decoder layer."""
    if held.parent is not None:
        same = {location: held.matrices[location].equal for location in held.matrices}
        _check_layers_changed(held, "rounded weights in every decoder layer", same)


def _check_layers_changed(held: Held, asked: str, same: dict[Location, bool | None]) -> None:
    layers: dict[int | None, list[str]] = {}
    changed = set()
    for location, equal in same.items():
        if not held.excuse(location):
            layers.setdefault(location.layer, []).append(held.linear(location).name)
            if equal is not True:
                changed.add(location.layer)
    # A layer without a changed linear layer may have other matrices, such as experts in one tensor.
    for location, stored in held.files.tensors.items():
        if location.layer in layers.keys() - changed and len(stored.shape) > 1 and held.same(location) is False:
            changed.add(location.layer)
    unchanged = [name for layer, names in layers.items() if layer not in changed for name in names]
    if unchanged:
        raise held.deviates(asked, "the parent's, bit for bit,", unchanged)


def _check_zeros_stay(held: Held) -> None:
    assert held.parent_skeleton is not None
    if not getattr(held.parent_skeleton.config, MARK, False):
        return
    lost = {
        held.linear(location).name: found.refilled
        for location, found in held.matrices.items()
        if found.refilled and found.zeros_before < found.stored.elements
    }
    if lost:
        raise held.deviates("the zeros of pruning to stay", f"{sum(lost.values()):,} of them filled,", list(lost))
