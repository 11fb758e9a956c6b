"""Depth pruning: whole layers are dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import PositiveInt, model_validator

from compresslab.methods.amounts import Misfit, left, parameters_wanted
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.method import Method, in_place
from compresslab.methods.settings import Share, StepConfig, both_or_neither


class PruneDepth(StepConfig):
    """Drop whole layers: `keep` stay (a number, or their share, below 1), or as many as fit into `parameters` (likewise).

    `by` says which go: the ones that change the hidden states least (`block-influence`), the run of neighbours whose two ends are most
    alike (`angular-distance`), or one after the other the one without which the calibration text's loss is lowest (`loss`, slow).
    """

    method: Literal["depth"]
    keep: PositiveInt | Share | None = None
    parameters: PositiveInt | Share | None = None
    by: Literal["block-influence", "angular-distance", "loss"] = "block-influence"

    @model_validator(mode="after")
    def _one_measure(self) -> PruneDepth:
        if (self.keep is None) == (self.parameters is None):
            raise ValueError(f"{both_or_neither(self.parameters)}; set exactly one of keep (layers) and parameters (the model's)")
        return self


def layers_left(config: PruneDepth, layers: int, count: Callable[[int], int]) -> int:
    """How many of `layers` stay: the number, the share, or as many as fit.

    Args:
        count: parameters of the model with so many layers.

    Raises:
        Misfit: none or all would stay, or not even one fits.
    """
    if config.parameters is None:
        assert config.keep is not None
        found: list[tuple[str, str]] = []
        kept = left("keep", config.keep, layers, "layers", 1, found)
        if found:
            raise Misfit(*found)
        return kept
    target = parameters_wanted(config.parameters, count(layers))
    for kept in range(layers - 1, 0, -1):
        if count(kept) <= target:
            return kept
    raise Misfit(("parameters", f"{target:,} are too few: with 1 of its {layers} layers the model has {count(1):,}"))


def kept(config: PruneDepth, model: Dimensions) -> int:
    """How many layers a step leaves. Raises Misfit if none, or all."""
    return layers_left(config, model.layers, lambda layers: model.without_layers(layers).parameters)


def shorter(config: PruneDepth, model: Dimensions) -> Dimensions:
    """The dimensions that a step leaves. Raises Misfit if it leaves nothing that works."""
    return model.without_layers(kept(config, model))


DEPTH = Method("prune", "depth", PruneDepth, "compresslab.steps.prune_depth", "calibration", "activations", cost=in_place, leaves=shorter)
