"""Linear layers at 4 bits, on which adapters are trained (QLoRA)."""

from __future__ import annotations

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import PreTrainedModel

from compresslab.errors import BadInput
from compresslab.models.anatomy import quantizable

# Number of weights per scale; it must divide the rows for bitsandbytes' kernels.
BLOCK = 64


def quantize_for_adapters(model: PreTrainedModel, compute: torch.dtype) -> None:
    """Quantize every linear layer except the output head to NF4 with double quantization, in place. They compute in `compute`.

    Source: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314, as bitsandbytes implements it.

    Raises:
        BadInput: the block size does not divide a layer's inputs.
    """
    layers = quantizable(model)
    for name, layer in layers.items():
        if layer.in_features % BLOCK:
            raise BadInput(
                f"retrain qlora: {name} has {layer.in_features} inputs; bitsandbytes needs multiples of {BLOCK} "
                f"(after `prune: {{method: width}}`, set `multiple: {BLOCK}`), or use lora"
            )
    for name, layer in layers.items():
        model.set_submodule(name, _packed(layer, compute))
    model.is_loaded_in_4bit = True  # peft reads this attribute


def merge_unpacked(adapted: PreTrainedModel) -> PreTrainedModel:
    """Merge adapters into the dequantized weights on which they were trained. Returns a plain model with these weights in float32."""
    from peft.tuners.lora.bnb import Linear4bit as Adapted

    for name, layer in list(adapted.named_modules()):
        if isinstance(layer, Adapted):
            plain = _unpacked(layer.base_layer)
            plain.weight.data += sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
            adapted.set_submodule(name, plain)
    model: PreTrainedModel = adapted.unload()
    del model.is_loaded_in_4bit
    return model


def _packed(layer: nn.Linear, compute: torch.dtype) -> Linear4bit:
    device = layer.weight.device
    packed = Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=compute, quant_type="nf4", device="meta")
    packed.weight = Params4bit(layer.weight.data.to(compute), requires_grad=False, quant_type="nf4", module=packed)
    packed.bias = layer.bias
    # The kernel for evaluation repacks the weights, and that layout supports no gradients.
    packed.support_avx512bf16_for_cpu = False
    return packed.to(device)


def _unpacked(packed: Linear4bit) -> nn.Linear:
    weight = dequantize_4bit(packed.weight.data, packed.weight.quant_state).to(torch.float32)
    plain = nn.Linear(packed.in_features, packed.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(weight)
    plain.bias = packed.bias
    return plain
