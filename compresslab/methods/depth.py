"""Depth pruning: whole layers are dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import PositiveInt, model_validator

from compresslab.methods.amounts import Misfit, number_to_keep, parameter_target
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.method import Method, in_place_cost
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
    """The number of `layers` that stay: the number itself, the share, or the maximum that fits into `parameters`.

    Args:
        count: number of parameters of the model with a given number of layers.

    Raises:
        Misfit: none or all would stay, or one layer alone has too many parameters.
    """
    if config.parameters is None:
        assert config.keep is not None
        problems: list[tuple[str, str]] = []
        kept = number_to_keep("keep", config.keep, layers, "layers", 1, problems)
        if problems:
            raise Misfit(*problems)
        return kept
    target = parameter_target(config.parameters, count(layers))
    for kept in range(layers - 1, 0, -1):
        if count(kept) <= target:
            return kept
    raise Misfit(("parameters", f"{target:,} are too few: with 1 of its {layers} layers the model has {count(1):,}"))


def kept_layers(config: PruneDepth, model: Dimensions) -> int:
    """The number of layers that a step leaves. Raises Misfit if that is none or all."""
    return layers_left(config, model.layers, lambda layers: model.without_layers(layers).parameters)


def dimensions_after(config: PruneDepth, model: Dimensions) -> Dimensions:
    """Dimensions of the model after a step. Raises Misfit if the settings do not fit the model."""
    return model.without_layers(kept_layers(config, model))


DEPTH = Method(
    "prune",
    "depth",
    PruneDepth,
    "compresslab.steps.prune_depth",
    "calibration",
    "activations",
    ends_stay=True,
    cost=in_place_cost,
    leaves=dimensions_after,
)
