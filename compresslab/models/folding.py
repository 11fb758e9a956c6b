"""Dividing a linear layer's inputs by scales where they come from, so that the model computes what it did."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compresslab.errors import UnsupportedModel

# Where the input of a linear layer comes from: a norm, or the rows of another linear layer; the first that is there counts.
NORMS = {
    "self_attn.q_proj": ("input_layernorm",),
    "attention.query_key_value": ("input_layernorm",),
    "mlp.gate_proj": ("pre_feedforward_layernorm", "post_attention_layernorm"),
    "mlp.dense_h_to_4h": ("post_attention_layernorm",),
}
ROWS = {"mlp.down_proj": "mlp.up_proj", "self_attn.o_proj": "self_attn.v_proj"}


def divide_inputs(layer: nn.Module, names: list[str], scale: Tensor) -> Tensor | None:
    """Let the linear layers `names`, which read one tensor, read it divided by `scale`.

    Args:
        layer: a decoder layer. scale: (inputs,) in float32.

    Returns:
        The division that was really made, (inputs,) in float32: a norm's weight is rounded to its dtype. `None` if nothing comes before
        that could divide (an activation function, values that several queries share); nothing was changed.

    Raises:
        UnsupportedModel: the norm is of a kind that does not scale its output by its weight.
    """
    modules = dict(layer.named_modules())
    for norm in NORMS.get(names[0], ()):
        if norm in modules:
            return _divide_norm(modules[norm], scale)
    source = modules.get(ROWS.get(names[0], ""))
    if not isinstance(source, nn.Linear) or source.out_features != len(scale):
        return None
    source.weight.data = source.weight.data / scale[:, None].to(source.weight)
    if source.bias is not None:
        source.bias.data = source.bias.data / scale.to(source.bias)
    return scale


def _divide_norm(norm: nn.Module, scale: Tensor) -> Tensor:
    """Divide what a norm multiplies by, whether that is its weight or one more than it (Gemma), and its bias."""
    weight = norm.get_parameter("weight")
    offset = _offset(norm)
    whole = weight.data.float() + offset
    divided = (whole / scale - offset).to(weight.dtype)
    made = torch.where(divided.float() + offset == 0, scale, whole / (divided.float() + offset))
    weight.data = divided
    bias = getattr(norm, "bias", None)
    if isinstance(bias, nn.Parameter):
        bias.data = (bias.data.float() / made).to(bias.dtype)
    return made


@torch.no_grad()
def _offset(norm: nn.Module) -> float:
    """0 if the norm multiplies by its weight, 1 if by one more than it: seen from what it does to a probe.

    Raises:
        UnsupportedModel: it does neither.
    """
    weight = norm.get_parameter("weight")
    probe = torch.linspace(-1, 1, weight.numel(), device=weight.device).to(weight.dtype)[None]
    kept = weight.data
    outputs = []
    for value in (0.0, 1.0, 2.0):
        weight.data = torch.full_like(kept, value)
        outputs.append((norm(probe) - (norm.bias if getattr(norm, "bias", None) is not None else 0)).float())
    weight.data = kept
    for offset in (0.0, 1.0):
        unit = outputs[2] - outputs[1]
        if all(torch.allclose(output, unit * (value + offset), rtol=0.02, atol=1e-2) for value, output in enumerate(outputs)):
            return offset
    raise UnsupportedModel(f"{type(norm).__name__} does not multiply its output by its weight, so no scales can be folded into it")
