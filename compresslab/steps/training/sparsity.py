"""Zeros of pruning, which training must keep."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

# Attribute in the config of a model whose weights were pruned to zero, which is saved with it. Zeros alone do not show that a model was
# pruned: one weight in nine is zero in a base that was stored in four symmetric bits.
MARK = "weights_pruned_to_zero"


def mark_sparse(model: PreTrainedModel) -> None:
    """Record in the config that zeros of the model's linear layers come from pruning."""
    setattr(model.config, MARK, True)


def pruned_zeros(model: PreTrainedModel) -> dict[str, Tensor]:
    """The masks of pruned zeros by the name of their linear layer; empty for a model that was not pruned to zero."""
    if not getattr(model.config, MARK, False):
        return {}
    masks = {name: module.weight == 0 for name, module in model.named_modules() if type(module) is nn.Linear}
    return {name: mask for name, mask in masks.items() if not mask.all()}  # adapters are initialized with zeros only
