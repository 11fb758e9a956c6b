"""Models whose linear layers are gptqmodel's: GPTQ and AWQ folders as plain transformers loads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.models.formats.reader import Reader

# What the tensors of a packed layer are called in the files.
TENSOR_NAMES = ("qweight", "qzeros", "scales", "g_idx")


class KernelLayers(Reader):
    """Layers that hold weights in whatever layout their kernel wants, so that they are compared by the weight that they multiply by."""

    packs_anew = True

    def tensors(self, model: PreTrainedModel) -> dict[str, Any]:
        """The plain weight in place of each packed layer's tensors."""
        found = super().tensors(model)
        for layer, module in model.named_modules():
            if hasattr(module, "qweight"):
                found = {name: tensor for name, tensor in found.items() if not name.startswith(f"{layer}.")}
                found[f"{layer}.weight"] = _kernel_weight(module).to(model.dtype)
                if module.bias is not None:
                    found[f"{layer}.bias"] = module.bias.to(model.dtype)
        return found


def _kernel_weight(module: torch.nn.Module) -> Tensor:
    """The plain weight (outputs, inputs) that a gptqmodel layer multiplies by; empty if its kernel tells nobody."""
    for name, arguments in (("dequantize_weight", ()), ("awq_weight_dequantize", ("cpu", torch.float16))):
        if callable(unpack := getattr(module, name, None)):
            weight: Tensor = unpack(*arguments).T
            return weight
    return torch.empty(0)
