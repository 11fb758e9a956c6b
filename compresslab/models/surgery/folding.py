"""Folds scales of a linear layer's inputs into the module before it, so that the model computes the same."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import UnsupportedModel
from compresslab.models.anatomy import linear_layers
from compresslab.models.calibration.blockwise import Blockwise, first_output
from compresslab.models.calibration.input_sums import InputSums, grouped_by_value
from compresslab.models.documents.boundaries import ModelInput
from compresslab.models.load import Loaded

# Relative to what the layer adds to the hidden states, in float32; rounding changes a hundredth of this.
LARGEST_CHANGE = 1e-2

# The source of a linear layer's input: the first existing one of some norms, or the rows of another linear layer. Of fused projections
# (gate and up, or queries, keys and values) these are the last ones, of that many parts of equal size.
NORMS = {
    "self_attn.q_proj": ("input_layernorm",),
    "self_attn.qkv_proj": ("input_layernorm",),
    "attention.query_key_value": ("input_layernorm",),
    "mlp.gate_proj": ("pre_feedforward_layernorm", "post_attention_layernorm"),
    "mlp.gate_up_proj": ("pre_feedforward_layernorm", "post_attention_layernorm"),
    "mlp.dense_h_to_4h": ("post_attention_layernorm",),
}
ROWS = {
    "mlp.down_proj": {"mlp.up_proj": 1, "mlp.gate_up_proj": 2},
    "self_attn.o_proj": {"self_attn.v_proj": 1, "self_attn.qkv_proj": 3},
}


def divide_inputs(layer: nn.Module, names: list[str], scale: Tensor) -> Tensor | None:
    """Divide the input that the linear layers `names` share by `scale`, in the module that computes it.

    Args:
        layer: a decoder layer. scale: (inputs,) in float32.

    Returns:
        The applied divisors, (inputs,) in float32, which differ from `scale` since a norm's weight is rounded to its dtype. `None` if no
        module can divide, because of an activation function or of values that several queries share; nothing was changed then.

    Raises:
        UnsupportedModel: the norm does not scale its output by its weight.
    """
    modules = dict(layer.named_modules())
    for norm in NORMS.get(names[0], ()):
        if norm in modules:
            return _divide_norm(modules[norm], scale)
    for name, parts in ROWS.get(names[0], {}).items():
        source = modules.get(name)
        if isinstance(source, nn.Linear) and source.out_features == parts * len(scale):
            divisors = torch.cat([torch.ones_like(scale).repeat(parts - 1), scale])
            source.weight.data = source.weight.data / divisors[:, None].to(source.weight)
            if source.bias is not None:
                source.bias.data = source.bias.data / divisors.to(source.bias)
            return scale
    return None


@torch.no_grad()
def check_folding(loaded: Loaded) -> None:
    """Divide and multiply by random scales in a copy of each decoder layer, and check that the layer computes the same.

    If it does not, another module reads the divided tensor (an MLP parallel to the attention), the norm is at another place, or an
    activation function is in between.

    Raises:
        UnsupportedModel: the message names the first layer and its linear layers whose inputs cannot be divided, or a layer in which no
            module is known that could divide any; nothing was changed.
    """
    model = loaded.model
    ids = torch.arange(24)[None] % model.config.get_text_config().vocab_size
    blocks = Blockwise(model, ModelInput(ids), loaded.weights)
    for number, layer in enumerate(blocks.layers):
        with loaded.holding(layer):
            copy = deepcopy(layer).float()
        hidden, (args, kwargs) = blocks.hidden[0].float(), blocks.arguments[0][number]
        sums = InputSums(copy, grams=False)
        with sums:
            expected = _output(copy, hidden, args, kwargs)
        groups, divided = grouped_by_value(sums.sources), 0
        for names in groups:
            linears = linear_layers(copy)
            width = linears[names[0]].in_features
            scale = torch.rand(width, generator=torch.Generator().manual_seed(0)).to(hidden.device) + 0.5
            divisors = divide_inputs(copy, names, scale)
            if divisors is None:
                continue
            divided += 1
            for name in names:
                linears[name].weight.data *= divisors
            change = (_output(copy, hidden, args, kwargs) - expected).abs().max() / (expected - hidden).abs().max()
            if not change <= LARGEST_CHANGE:
                raise UnsupportedModel(
                    f"{model.config.model_type}: awq cannot scale the inputs of {', '.join(names)} in layer {number}: "
                    f"dividing them where they come from changes the layer by {float(change):.0%}; take gptq or rtn"
                )
        if not divided:
            raise UnsupportedModel(
                f"{model.config.model_type}: awq can scale no inputs in layer {number}, since where those of "
                f"{', '.join(name for names in groups for name in names)} come from is not known; it would only round to the nearest. "
                "Take gptq or rtn"
            )


def _output(layer: nn.Module, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A decoder layer's output in float32."""
    positional = [_in_float32(value) for value in args]
    return first_output(layer(hidden, *positional, **{name: _in_float32(value) for name, value in kwargs.items()}))


def _in_float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_in_float32, value))
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _divide_norm(norm: nn.Module, scale: Tensor) -> Tensor:
    """Divide the factor of a norm, which is its weight or, in Gemma, its weight plus 1, and its bias. Returns the applied divisors."""
    weight = norm.get_parameter("weight")
    offset = _offset(norm)
    factor = weight.data.float() + offset
    divided = (factor / scale - offset).to(weight.dtype)
    divisors = torch.where(divided.float() + offset == 0, scale, factor / (divided.float() + offset))
    weight.data = divided
    bias = getattr(norm, "bias", None)
    if isinstance(bias, nn.Parameter):
        bias.data = (bias.data.float() / divisors).to(bias.dtype)
    return divisors


@torch.no_grad()
def _offset(norm: nn.Module) -> float:
    """0 if the norm multiplies by its weight, 1 if by its weight plus 1, measured on a probe.

    Raises:
        UnsupportedModel: it multiplies by neither.
    """
    weight = norm.get_parameter("weight")
    probe = torch.linspace(-1, 1, weight.numel(), device=weight.device).to(weight.dtype)[None]
    original = weight.data
    outputs = []
    for value in (0.0, 1.0, 2.0):
        weight.data = torch.full_like(original, value)
        outputs.append((norm(probe) - (norm.bias if getattr(norm, "bias", None) is not None else 0)).float())
    weight.data = original
    for offset in (0.0, 1.0):
        unit = outputs[2] - outputs[1]
        if all(torch.allclose(output, unit * (value + offset), rtol=0.02, atol=1e-2) for value, output in enumerate(outputs)):
            return offset
    raise UnsupportedModel(f"{type(norm).__name__} does not multiply its output by its weight, so no scales can be folded into it")
