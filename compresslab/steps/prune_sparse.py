"""Unstructured and n:m pruning: weights become zero and the matrices keep their shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compresslab.algorithms.hessian import inverse_factor
from compresslab.algorithms.magnitude import magnitude
from compresslab.algorithms.sparsegpt import sparsegpt
from compresslab.algorithms.sparsity import kept_mask, kept_of_each
from compresslab.algorithms.wanda import wanda
from compresslab.errors import BadInput, RunFailed
from compresslab.models.anatomy import check_linear, decoder_layers, linear_layers
from compresslab.models.blockwise import Blockwise
from compresslab.models.load import Loaded
from compresslab.recipe.schema import PruneSparse
from compresslab.steps.contract import Context, Outcome


@torch.no_grad()
def apply(loaded: Loaded, config: PruneSparse, context: Context) -> Outcome:
    """Set weights of the linear layers inside the decoder layers to zero, layer by layer; each sees the inputs that pruned layers before
    it give. Needs calibration text, but for `magnitude`.

    Raises:
        BadInput: the pattern does not divide a layer's inputs.
        RunFailed: the calibration's second moments cannot be inverted.
        UnsupportedModel: the layers are in no list that we know, or much of the model is in no linear layer.
    """
    model = loaded.model
    check_linear(model, config.method, "prunes")
    layers = decoder_layers(model)
    check_pattern(layers, config)
    walk = None if config.method == "magnitude" else Blockwise(model, _ids(context))
    dropped, total = 0, 0
    for number, layer in enumerate(layers):
        grams = walk.grams(number)[0] if walk is not None else {}
        for name, linear in linear_layers(layer).items():
            where = f"layer {number}, {name}"
            linear.weight.copy_(pruned(linear.weight, grams.get(name), config, where))
            dropped += int((linear.weight == 0).sum())
            total += linear.weight.numel()
        if walk is not None:
            walk.hidden = walk.through(number)
        context.progress((number + 1) / len(layers), f"{config.method}, layer by layer")
    tokens = context.text.ids.numel() if walk is not None and context.text is not None else 0
    return Outcome(model, calibration_tokens=tokens, details={"sparsity": round(dropped / total, 6), "weights": total})


def pruned(weight: Tensor, gram: Tensor | None, config: PruneSparse, where: str) -> Tensor:
    """One matrix, pruned. `gram` is that of its inputs; `magnitude` needs none."""
    if config.method == "sparsegpt":
        assert gram is not None
        try:
            factor = inverse_factor(gram, config.damping)
        except ValueError as error:
            raise RunFailed(f"prune sparsegpt, {where}: {error}; take more calibration text, or a larger damping") from error
        return sparsegpt(weight, factor, config.share, config.of).to(weight.dtype)
    if config.method == "wanda":
        assert gram is not None
        importance = wanda(weight, gram)
    else:
        importance = magnitude(weight)
    if not torch.isfinite(importance).all():
        raise RunFailed(f"prune {config.method}, {where}: the importances are not finite; try dtype float32 or bfloat16")
    if config.of is not None:
        return weight * kept_of_each(importance, *config.of)
    return weight * kept_mask(importance, config.share, "row" if config.method == "wanda" else "layer")


def check_pattern(layers: nn.ModuleList, config: PruneSparse) -> None:
    """Refuse a pattern that leaves a remainder. Raises BadInput, naming the first such layer."""
    if config.of is None:
        return
    for name, linear in linear_layers(layers).items():
        if linear.in_features % config.of[1]:
            raise BadInput(
                f"prune {config.method}: pattern {config.pattern} does not divide the {linear.in_features} inputs of layers.{name}"
            )


def _ids(context: Context) -> Tensor:
    assert context.text is not None
    return context.text.ids
