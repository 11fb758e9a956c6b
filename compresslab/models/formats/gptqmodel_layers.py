"""Models with linear layers of gptqmodel, as transformers loads GPTQ and AWQ folders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.models.formats.reader import Reader

# Names of the tensors of a packed layer in the files.
TENSOR_NAMES = ("qweight", "qzeros", "scales", "g_idx")


class KernelLayers(Reader):
    """Compares packed layers by the plain weight that they multiply by, since the layout of the packed one depends on the kernel."""

    repacks_on_load = True

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
    """The plain weight (outputs, inputs) that a gptqmodel layer multiplies by; empty if its kernel cannot return it."""
    for name, arguments in (("dequantize_weight", ()), ("awq_weight_dequantize", ("cpu", torch.float16))):
        if callable(unpack := getattr(module, name, None)):
            weight: Tensor = unpack(*arguments).T
            return weight
    return torch.empty(0)
