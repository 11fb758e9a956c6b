"""Linear layers held at 4 bits while adapters on them are trained (QLoRA)."""

from __future__ import annotations

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import PreTrainedModel

from compresslab.errors import BadInput
from compresslab.models.anatomy import check_linear, quantizable

# Weights that share a scale; bitsandbytes' kernels want whole ones in a row.
BLOCK = 64


def hold_at_four_bits(model: PreTrainedModel, compute: torch.dtype) -> None:
    """Round every linear layer but the output head to NF4, in place, with double quantization of the scales; they compute in `compute`.

    Source: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314, as bitsandbytes implements it.

    Raises:
        BadInput: a layer's inputs do not fill whole blocks. UnsupportedModel: much of the model is in no linear layer.
    """
    check_linear(model, "qlora")
    layers = quantizable(model)
    for name, layer in layers.items():
        if layer.in_features % BLOCK:
            raise BadInput(
                f"retrain qlora: {name} has {layer.in_features} inputs; bitsandbytes needs multiples of {BLOCK} "
                f"(after `prune: {{method: width}}`, set `multiple: {BLOCK}`), or use lora"
            )
    for name, layer in layers.items():
        model.set_submodule(name, _packed(layer, compute))
    model.is_loaded_in_4bit = True  # what peft asks


def merge_unpacked(adapted: PreTrainedModel) -> PreTrainedModel:
    """Add adapters to the weights that they were trained against, the rounded ones; gives back a plain model with those in float32."""
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
    # Its kernel for evaluation lays the weights out anew, and through that layout no gradient flows.
    packed.support_avx512bf16_for_cpu = False
    return packed.to(device)


def _unpacked(packed: Linear4bit) -> nn.Linear:
    weight = dequantize_4bit(packed.weight.data, packed.weight.quant_state).to(torch.float32)
    plain = nn.Linear(packed.in_features, packed.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(weight)
    plain.bias = packed.bias
    return plain
