"""Dividing a linear layer's inputs by scales where they come from, so that the model computes what it did."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.models.anatomy import linear_layers
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.calibration.input_sums import InputSums, together

# Of what the layer adds, in float32: rounding is a hundred times less.
LARGEST_CHANGE = 1e-2

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


@torch.no_grad()
def check_folding(model: PreTrainedModel) -> None:
    """Divide and multiply by random scales in a copy of each decoder layer, and see whether the layer still computes the same.

    Where it does not, something else reads what was divided (an MLP beside the attention), the norm lies elsewhere, or an activation
    function stands between.

    Raises:
        UnsupportedModel: naming the first layer and the linear layers whose inputs cannot be divided; nothing was changed.
    """
    ids = torch.arange(24)[None] % model.config.get_text_config().vocab_size
    walk = Blockwise(model, ids)
    for number, layer in enumerate(walk.layers):
        copy = deepcopy(layer).float()
        hidden, (args, kwargs) = walk.hidden[0].float(), walk.extras[0][number]
        sums = InputSums(copy, grams=False)
        with sums:
            expected = _output(copy, hidden, args, kwargs)
        for names in together(sums.sources):
            linears = linear_layers(copy)
            width = linears[names[0]].in_features
            scale = torch.rand(width, generator=torch.Generator().manual_seed(0)).to(hidden.device) + 0.5
            made = divide_inputs(copy, names, scale)
            if made is None:
                continue
            for name in names:
                linears[name].weight.data *= made
            wrong = (_output(copy, hidden, args, kwargs) - expected).abs().max() / (expected - hidden).abs().max()
            if not wrong <= LARGEST_CHANGE:
                raise UnsupportedModel(
                    f"{model.config.model_type}: awq cannot scale the inputs of {', '.join(names)} in layer {number}: "
                    f"dividing them where they come from changes the layer by {float(wrong):.0%}; take gptq or rtn"
                )


def _output(layer: nn.Module, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A decoder layer's output in float32."""
    wide = [_widened(value) for value in args]
    output = layer(hidden, *wide, **{name: _widened(value) for name, value in kwargs.items()})
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_widened, value))
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


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
