"""Which of the trained parameters weight decay shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def decay_groups(
    modules: Sequence[nn.Module], parameters: Sequence[Tensor], weights: Sequence[Tensor], decay: float
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: matrices decay, norms, biases and embeddings do not.

    Every parameter of two dimensions or more is a matrix here, so some state-space parameters decay, too (Mamba's `A_log`).

    A norm's weight and a bias have no scale that later layers undo. The row of a token that the text does not contain has no gradient, so
    decay alone would move it; a tied output head is an embedding here. Source: OLMo 2 (https://arxiv.org/abs/2501.00656), which
    takes embeddings out, too.

    Args:
        modules: the trained modules. parameters: their trained parameters, or the shards of these.
        weights: the tensors that the optimizer updates, one for each of `parameters`.
    """
    tables = {id(module.weight) for part in modules for module in part.modules() if isinstance(module, nn.Embedding)}
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for parameter, weight in zip(parameters, weights, strict=True):
        (decayed if parameter.dim() > 1 and id(parameter) not in tables else others).append(weight)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
