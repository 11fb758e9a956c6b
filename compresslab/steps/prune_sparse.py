"""Unstructured and n:m pruning: weights become zero, matrices keep their shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compresslab.algorithms.hessian import inverse_factor
from compresslab.algorithms.magnitude import magnitude
from compresslab.algorithms.sparsegpt import sparsegpt
from compresslab.algorithms.sparsity import kept_mask, kept_of_each
from compresslab.algorithms.wanda import wanda
from compresslab.errors import BadInput, RunFailed
from compresslab.methods.sparse import PruneSparse
from compresslab.models.anatomy import decoder_layers, linear_layers
from compresslab.models.calibration.statistics import Statistics
from compresslab.models.load import Loaded
from compresslab.steps.checks import second_moments
from compresslab.steps.contract import Context, StepResult, layers_in_turn, statistics_of
from compresslab.steps.training.sparsity import mark_sparse


@torch.no_grad()
def apply(loaded: Loaded, config: PruneSparse, context: Context) -> StepResult:
    """Set weights of the linear layers inside the decoder layers to zero. Needs calibration text, except for `magnitude`.

    Each layer is pruned by its inputs in the unpruned model, so that every ratio of a sweep shares one pass. For SmolLM2 this is as good as
    using inputs that the pruned layers before compute (experiments/calibration). As in the authors' code, SparseGPT sets all weights of
    inputs that are zero on the whole text to zero first.

    Raises:
        BadInput: the pattern does not divide a layer's inputs.
        RunFailed: the calibration's second moments cannot be inverted.
        UnsupportedModel: the list of layers is not known.
    """
    model = loaded.model
    layers = decoder_layers(model)
    check_pattern(layers, config)
    statistics = None if config.method == "magnitude" else statistics_of(loaded, context, grams=config.method == "sparsegpt")
    zeros, total = 0, 0
    for number, layer in enumerate(layers_in_turn(loaded, context)):
        linears = linear_layers(layer)
        for names in statistics.groups_sharing_sums(number) if statistics is not None else [[name] for name in linears]:
            weights = [linears[name].weight for name in names]
            for weight, new in zip(weights, pruned(weights, statistics, config, number, names), strict=True):
                weight.copy_(new)
                zeros += int((weight == 0).sum())
                total += weight.numel()
        context.progress((number + 1) / len(layers), f"{config.method}, layer {number + 1} of {len(layers)}")
    mark_sparse(model)
    details = {"sparsity": round(zeros / total, 6), "weights": total}
    return StepResult(model, calibration_tokens=statistics.tokens if statistics is not None else 0, details=details)


def pruned(
    weights: Sequence[Tensor], statistics: Statistics | None, config: PruneSparse, layer: int, names: Sequence[str]
) -> Iterator[Tensor]:
    """The pruned weights of linear layers that read the same input."""
    if config.method == "sparsegpt":
        assert statistics is not None
        with second_moments(f"prune sparsegpt, layer {layer}, {names[0]}"):
            factor = inverse_factor(statistics.gram(layer, names[0]).to(weights[0].device), config.damping)
        silent = statistics.silent(layer, names[0]).to(factor.device)
        for weight in weights:
            yield sparsegpt(weight.masked_fill(silent, 0), factor, config.dropped_share, config.pattern_numbers).to(weight.dtype)
        return
    for weight, name in zip(weights, names, strict=True):
        importance = (
            magnitude(weight) if statistics is None else wanda(weight, statistics.sum_of_squares(layer, name).float().to(weight.device))
        )
        # Weights that are zero go first, also where other weights of inputs that never fire are of no importance, either.
        yield weight * weights_to_keep(importance.masked_fill(weight == 0, -1), config, f"layer {layer}, {name}")


def weights_to_keep(importance: Tensor, config: PruneSparse, where: str) -> Tensor:
    """Whether each weight stays, as a mask.

    Raises:
        RunFailed: an importance is not finite.
    """
    if not torch.isfinite(importance).all():
        raise RunFailed(f"prune {config.method}, {where}: the importances are not finite; try dtype float32 or bfloat16")
    if config.pattern_numbers is not None:
        return kept_of_each(importance, *config.pattern_numbers)
    return kept_mask(importance, config.dropped_share, "row" if config.method == "wanda" else "layer")


def check_pattern(layers: nn.ModuleList, config: PruneSparse) -> None:
    """Refuse a pattern that does not divide the inputs of a layer. Raises BadInput, which names the first such layer."""
    if config.pattern_numbers is None:
        return
    for name, linear in linear_layers(layers).items():
        if linear.in_features % config.pattern_numbers[1]:
            raise BadInput(
                f"prune {config.method}: pattern {config.pattern} does not divide the {linear.in_features} inputs of layers.{name}"
            )
