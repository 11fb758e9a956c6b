"""Cutting neurons, heads and channels out of a model, so that it is what plain transformers would build from the narrower config.

Which dimension of which parameter belongs to an axis is not written down for each architecture: the model is built anew, without weights,
with that axis doubled, and what doubles belongs to it. A parameter that behaves otherwise is a reason to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.methods.amounts import Widths
from compresslab.models.anatomy import attentions, decoder_layers, gated_mlps, head_dimension

Axis = Literal["neurons", "groups", "hidden"]
AXES: tuple[Axis, ...] = ("neurons", "groups", "hidden")
# For each parameter by name, the axis of each of its dimensions.
Roles = dict[str, tuple[Axis | None, ...]]
# Settings of modules that follow from the widths and are no weights.
FOLLOWING = (
    *("in_features", "out_features", "embedding_dim", "hidden_size", "embed_dim", "intermediate_size", "scalar_embed_scale"),
    *("num_heads", "num_attention_heads", "num_key_value_heads"),
)
# Largest difference between a norm and the root-mean-square norm that it should be, relative to its largest output; bfloat16 has 0.004.
NORM_TOLERANCE = 0.02


class Kept(NamedTuple):
    """What stays: of each layer its neurons and its groups, and the channels of all of them. All ascending; `None` leaves an axis whole."""

    neurons: Sequence[Tensor] | None = None
    groups: Sequence[Tensor] | None = None
    hidden: Tensor | None = None


def widths_of(config: PretrainedConfig) -> Widths:
    """The widths that a config states."""
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return Widths(config.intermediate_size, groups, config.hidden_size)


def with_widths(config: PretrainedConfig, widths: Widths) -> PretrainedConfig:
    """A copy of the config with other widths; heads keep their dimension, which rotary frequencies and the scale of scores depend on."""
    copy = deepcopy(config)
    text, before = copy.get_text_config(), widths_of(config.get_text_config())
    if widths.neurons != before.neurons:
        text.intermediate_size = widths.neurons
    if widths[1:] != before[1:]:
        text.head_dim = head_dimension(text)
    if widths.groups != before.groups:
        text.num_attention_heads = text.num_attention_heads // before.groups * widths.groups
        text.num_key_value_heads = widths.groups
    if widths.hidden != before.hidden:
        text.hidden_size = widths.hidden
    return copy


def heads_must_divide(config: PretrainedConfig) -> bool:
    """Whether transformers refuses a config whose hidden size is no multiple of the number of query heads."""
    text = deepcopy(config.get_text_config())
    text.hidden_size = text.num_attention_heads * text.hidden_size + 1
    text.head_dim = head_dimension(config.get_text_config())
    try:
        text.validate_architecture()
    except ValueError:
        return int(text.num_attention_heads) > 1
    return False


def roles_of(model: PreTrainedModel, axes: Sequence[Axis]) -> Roles:
    """What belongs to the axes, by parameter.

    Raises:
        UnsupportedModel: an axis cannot be cut in this architecture; the message names the parameter or the module in the way.
    """
    roles: Roles = {name: (None,) * parameter.dim() for name, parameter in model.named_parameters()}
    if getattr(model.config.get_text_config(), "intermediate_size", None) is None:
        raise UnsupportedModel(f"{model.config.model_type}: width pruning needs a config that states intermediate_size")
    for axis in axes:
        whole = widths_of(model.config.get_text_config())
        doubled = _rebuilt(model, whole._replace(**{axis: 2 * getattr(whole, axis)}))
        expected = {"neurons": _neuron_roles, "groups": _group_roles, "hidden": _channel_roles}[axis](model)
        theirs = dict(doubled.named_parameters())
        for name, parameter in model.named_parameters():
            found = _doubling(parameter, theirs.get(name))
            # Embeddings and norms have channels wherever the config puts them.
            if found is None or found != expected.get(name, found if axis == "hidden" else (False,) * parameter.dim()):
                shape = tuple(theirs[name].shape) if name in theirs else "not there"
                raise UnsupportedModel(
                    f"{model.config.model_type}: width pruning cannot cut {axis}, since {name} of shape {tuple(parameter.shape)} "
                    f"is {shape} with twice as many"
                )
            roles[name] = tuple(axis if doubles else role for doubles, role in zip(found, roles[name], strict=True))
    if "hidden" in axes:
        for name, norm in _norms(model, roles).items():
            _offset(model, name, norm)
    return roles


def counter(model: PreTrainedModel, roles: Roles) -> Callable[[Widths], int]:
    """For widths, the number of parameters; one look at the model for as many questions as there are."""
    whole = widths_of(model.config.get_text_config())
    sums: dict[tuple[Axis, ...], int] = {}
    for name, parameter in model.named_parameters():
        cut = tuple(axis for axis in roles[name] if axis is not None)
        sums[cut] = sums.get(cut, 0) + parameter.numel()

    def counted(widths: Widths) -> int:
        total = 0
        for cut, size in sums.items():
            for axis in cut:
                size = size // getattr(whole, axis) * getattr(widths, axis)
            total += size
        return total

    return counted


@torch.no_grad()
def narrow(model: PreTrainedModel, roles: Roles, kept: Kept) -> None:
    """Cut the model down to what is kept, in place: weights, settings of modules, config.

    The result computes what the whole model would with zeros for what goes. A root-mean-square norm divides by the number of channels, so
    that fewer channels make its outputs smaller: its weights are scaled up by as much. So are Gemma's embeddings, which the model
    multiplies by the root of the number of channels (and the last norm down again, where the output head is the same matrix).

    Raises:
        UnsupportedModel: the config makes other shapes or settings than the cut has; nothing was changed.
    """
    text = model.config.get_text_config()
    whole = widths_of(text)
    widths = Widths(
        len(kept.neurons[0]) if kept.neurons is not None else whole.neurons,
        len(kept.groups[0]) if kept.groups is not None else whole.groups,
        len(kept.hidden) if kept.hidden is not None else whole.hidden,
    )
    rebuilt = _rebuilt(model, widths)
    _check_shapes(model, rebuilt, roles, widths)
    settings = _following(model, rebuilt)
    if kept.hidden is not None:
        _compensate(model, roles, whole.hidden, widths.hidden, settings)
    layer_of = _layer_numbers(model)
    for name, parameter in model.named_parameters():
        for dimension, axis in enumerate(roles[name]):
            if axis is not None and (which := getattr(kept, axis)) is not None:
                places = which if axis == "hidden" else which[layer_of[name]]
                parameter.data = parameter.data.index_select(
                    dimension, _spread(places, parameter.shape[dimension], whole, axis).to(parameter.device)
                )
    for module, name, value in settings:
        setattr(module, name, value)
        if name == "scalar_embed_scale":
            module.get_buffer("embed_scale").fill_(value)
    new = rebuilt.config.get_text_config()
    for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim"):
        if hasattr(new, name):
            setattr(text, name, getattr(new, name))


def _rebuilt(model: PreTrainedModel, widths: Widths) -> PreTrainedModel:
    """What transformers makes of the config with other widths, without weights."""
    with torch.device("meta"):
        rebuilt: PreTrainedModel = type(model)(with_widths(model.config, widths))
    return rebuilt


def _doubling(ours: Tensor, theirs: Tensor | None) -> tuple[bool, ...] | None:
    """Which dimensions are twice as large; `None` if one is neither that nor the same."""
    if theirs is None or theirs.dim() != ours.dim():
        return None
    ratios = [new / old for old, new in zip(ours.shape, theirs.shape, strict=True)]
    return tuple(ratio == 2 for ratio in ratios) if set(ratios) <= {1, 2} else None


def _neuron_roles(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The dimensions of neurons as they must be: rows of gate and up, columns of down."""
    return _expected(
        model, [(linear, row) for mlp in gated_mlps(model) for linear, row in _rows(mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    )


def _group_roles(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The dimensions of heads as they must be: rows of the query, key and value projections, columns of the output projection."""
    found = attentions(model)
    return _expected(model, [pair for one in found for pair in _rows(one.q_proj, one.k_proj, one.v_proj, one.o_proj)])


def _channel_roles(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The dimensions of channels as they must be inside the blocks: all projections read them but the last ones, which write them."""
    pairs = []
    for attention, mlp in zip(attentions(model), gated_mlps(model), strict=True):
        readers = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
        pairs += [*((linear, False) for linear in readers), (attention.o_proj, True), (mlp.down_proj, True)]
    return _expected(model, pairs)


def _rows(*linears: nn.Linear) -> list[tuple[nn.Linear, bool]]:
    """The linear layers that write an axis, and the last one, which reads it."""
    return [(linear, number < len(linears) - 1) for number, linear in enumerate(linears)]


def _expected(model: PreTrainedModel, linears: Sequence[tuple[nn.Linear, bool]]) -> dict[str, tuple[bool, ...]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[bool, ...]] = {}
    for linear, writes in linears:
        found[names[id(linear.weight)]] = (writes, not writes)
        if linear.bias is not None:
            found[names[id(linear.bias)]] = (writes,)
    return found


def _spread(places: Tensor, size: int, whole: Widths, axis: Axis) -> Tensor:
    """Indices into a dimension in which each of the axis' places takes as many neighbours (a head, all heads of a group)."""
    span = size // int(getattr(whole, axis))
    return (places[:, None] * span + torch.arange(span)).flatten()


def _layer_numbers(model: PreTrainedModel) -> dict[str, int]:
    """The decoder layer of each parameter that is in one."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = decoder_layers(model)
    return {names[id(parameter)]: number for number, layer in enumerate(layers) for parameter in layer.parameters()}


def _check_shapes(model: PreTrainedModel, rebuilt: PreTrainedModel, roles: Roles, widths: Widths) -> None:
    whole = widths_of(model.config.get_text_config())
    theirs = {**dict(rebuilt.named_parameters()), **dict(rebuilt.named_buffers())}
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        axes = roles.get(name, (None,) * tensor.dim())
        shape = tuple(
            size if axis is None else size // getattr(whole, axis) * getattr(widths, axis)
            for size, axis in zip(tensor.shape, axes, strict=True)
        )
        if name not in theirs or tuple(theirs[name].shape) != shape:
            there = tuple(theirs[name].shape) if name in theirs else "not there"
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning would leave {name} with shape {shape}, and its config makes it {there}"
            )


def _following(model: PreTrainedModel, rebuilt: PreTrainedModel) -> list[tuple[nn.Module, str, int | float]]:
    """The settings of modules that the narrower config changes.

    Raises:
        UnsupportedModel: one changes whose meaning is not known here.
    """
    theirs = dict(rebuilt.named_modules())
    found: list[tuple[nn.Module, str, int | float]] = []
    for path, module in model.named_modules():
        for name, value in vars(theirs[path]).items():
            old = getattr(module, name, None)
            if name.startswith("_") or isinstance(value, bool) or not isinstance(value, int | float | tuple) or old == value:
                continue
            if name not in FOLLOWING or isinstance(value, tuple):
                raise UnsupportedModel(
                    f"{model.config.model_type}: width pruning would change {path}.{name} from {old} to {value}, "
                    "and what that does is not known"
                )
            found.append((module, name, value))
    return found


def _norms(model: PreTrainedModel, roles: Roles) -> Mapping[str, nn.Module]:
    """The modules with a weight for each channel that are no linear layer, by the name of that weight."""
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name, axes in roles.items() if axes == ("hidden",)}
    return {name: module for name, module in owners.items() if not isinstance(module, nn.Linear)}


@torch.no_grad()
def _offset(model: PreTrainedModel, name: str, norm: nn.Module) -> int:
    """What a norm adds to its weights: 0, or 1 in Gemma.

    Raises:
        UnsupportedModel: it is no root-mean-square norm with one weight a channel (it subtracts the mean, say).
    """
    weight = norm.get_parameter(name.rpartition(".")[2])
    generator = torch.Generator().manual_seed(0)
    probe = (torch.randn(4, weight.numel(), generator=generator) + 1).to(weight.device, weight.dtype)
    got = norm(probe).float()
    plain = probe.float() / probe.float().square().mean(-1, keepdim=True).sqrt()
    for offset in (0, 1):
        wanted = plain * (weight.float() + offset)
        if (got - wanted).abs().max() <= NORM_TOLERANCE * wanted.abs().max():
            return offset
    raise UnsupportedModel(
        f"{model.config.model_type}: width pruning cannot cut hidden channels past {name.rpartition('.')[0]}: "
        f"{type(norm).__name__} is no root-mean-square norm"
    )


def _compensate(
    model: PreTrainedModel, roles: Roles, before: int, after: int, settings: Sequence[tuple[nn.Module, str, int | float]]
) -> None:
    """Scale norms and embeddings for `after` of `before` channels."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    scaled = 1.0
    for module, name, value in settings:
        if name == "scalar_embed_scale":
            weight = module.get_parameter("weight")
            # As the forward pass rounds them.
            old, new = (torch.tensor(float(scale)).to(weight.dtype).item() for scale in (getattr(module, name), value))
            scaled = old / new
            weight.copy_(weight.float() * scaled)
    tied = head is not None and head.weight is embedding.weight
    layer_of = _layer_numbers(model)
    for name, norm in _norms(model, roles).items():
        weight, offset = norm.get_parameter(name.rpartition(".")[2]), _offset(model, name, norm)
        factor = math.sqrt(before / after) / (scaled if tied and name not in layer_of else 1.0)
        weight.copy_((weight.float() + offset) * factor - offset)
