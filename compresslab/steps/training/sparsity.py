"""Zeros that pruning has set and that training must keep."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

# In the config of a model whose weights were pruned to zero; it travels with the folder. That a weight is zero says nothing by itself:
# one in nine is in a base that was stored in four symmetric bits.
MARK = "weights_pruned_to_zero"


def mark_sparse(model: PreTrainedModel) -> None:
    """Note that zeros of the model's linear layers are there on purpose."""
    setattr(model.config, MARK, True)


def pruned_zeros(model: PreTrainedModel) -> dict[str, Tensor]:
    """Of a model that was pruned to zero, the masks of the zeros by the name of their linear layer; nothing for any other model."""
    if not getattr(model.config, MARK, False):
        return {}
    masks = {name: module.weight == 0 for name, module in model.named_modules() if type(module) is nn.Linear}
    return {name: mask for name, mask in masks.items() if not mask.all()}  # adapters start as nothing but zeros
