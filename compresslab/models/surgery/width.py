"""Removes neurons, heads and channels from a model, so that it equals the model that transformers builds from the narrower config.

The dimensions of parameters that belong to an axis are not listed by architecture. The model is built again without weights and with the
axis doubled; the dimensions that double belong to the axis. A model with a parameter that behaves otherwise is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.errors import BadInput, UnsupportedModel
from compresslab.methods.amounts import Misfit, Widths
from compresslab.methods.width import PruneWidth, widths_left
from compresslab.models.anatomy import attentions, decoder_layers, gated_mlps, head_dimension
from compresslab.models.surgery.norms import (
    EPSILON_ATTRIBUTES,
    EPSILON_SETTINGS,
    channel_norms,
    check_norms,
    inner_norm_linears,
    scale_epsilons,
    scale_norm,
)

Axis = Literal["neurons", "groups", "hidden"]
AXES: tuple[Axis, ...] = ("neurons", "groups", "hidden")
# For each parameter by name, the axis of each of its dimensions.
ParameterAxes = dict[str, tuple[Axis | None, ...]]
# Attributes of modules that the widths determine and that are no weights.
DERIVED_ATTRIBUTES = (
    *("in_features", "out_features", "embedding_dim", "hidden_size", "embed_dim", "intermediate_size", "scalar_embed_scale"),
    *("num_heads", "num_attention_heads", "num_key_value_heads"),
    *EPSILON_ATTRIBUTES,
)


class KeptIndices(NamedTuple):
    """Ascending indices that stay: neurons and groups of each layer, and channels of all layers. `None` keeps an axis unchanged."""

    neurons: Sequence[Tensor] | None = None
    groups: Sequence[Tensor] | None = None
    hidden: Tensor | None = None


def widths_of(config: PretrainedConfig) -> Widths:
    """The widths that a config states."""
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return Widths(config.intermediate_size, groups, config.hidden_size)


def with_widths(config: PretrainedConfig, widths: Widths) -> PretrainedConfig:
    """A copy of the config with other widths. Heads keep their dimension, since rotary frequencies and the scale of scores depend on it."""
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
        scale_epsilons(text, before.hidden / widths.hidden)
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


def parameter_axes(model: PreTrainedModel, axes: Sequence[Axis], *, try_norms: bool = True) -> ParameterAxes:
    """The axis of each dimension of each parameter, for the given axes.

    Args:
        try_norms: whether norms are tried, of a model whose vectors are in memory.

    Raises:
        UnsupportedModel: an axis cannot be cut in this architecture; the message names the parameter or the module that prevents it.
    """
    axes_of: ParameterAxes = {name: (None,) * parameter.dim() for name, parameter in model.named_parameters()}
    for field in ("intermediate_size", "num_attention_heads"):
        if getattr(model.config.get_text_config(), field, None) is None:
            raise UnsupportedModel(f"{model.config.model_type}: width pruning needs a config that states {field}")
    for axis in axes:
        original = widths_of(model.config.get_text_config())
        doubled = _rebuilt(model, original._replace(**{axis: 2 * getattr(original, axis)}))
        expected = {"neurons": _expected_neurons, "groups": _expected_groups, "hidden": _expected_channels}[axis](model)
        theirs = dict(doubled.named_parameters())
        for name, parameter in model.named_parameters():
            found = _doubling(parameter, theirs.get(name))
            # Embeddings and norms may have channels in any dimension.
            if found is None or found != expected.get(name, found if axis == "hidden" else (False,) * parameter.dim()):
                shape = tuple(theirs[name].shape) if name in theirs else "not there"
                raise UnsupportedModel(
                    f"{model.config.model_type}: width pruning cannot cut {axis}, since {name} of shape {tuple(parameter.shape)} "
                    f"is {shape} with twice as many"
                )
            axes_of[name] = tuple(axis if doubles else known for doubles, known in zip(found, axes_of[name], strict=True))
        if axis == "hidden" and try_norms:
            check_norms(model, doubled, channel_norms(model, axes_of))
    return axes_of


def cut_axes(config: PruneWidth) -> list[Axis]:
    """The axes that a step cuts."""
    if config.parameters is not None:
        return [axis for axis in AXES if axis in config.axes]
    given = {"neurons": config.keep, "groups": config.groups, "hidden": config.hidden}
    return [axis for axis in AXES if given[axis] is not None]


def asked_widths(model: PreTrainedModel, config: PruneWidth, axes_of: ParameterAxes) -> Widths:
    """The widths that a step's settings ask of a model, which may be without weights.

    Raises:
        BadInput: the settings leave nothing or all of an axis, or a model that transformers does not load.
    """
    text = model.config.get_text_config()
    original = widths_of(text)
    heads = text.num_attention_heads // original.groups if heads_must_divide(model.config) else 0
    try:
        return widths_left(config, original, heads, parameter_counter(model, axes_of))
    except Misfit as misfit:
        raise BadInput(f"prune width: {misfit}") from misfit


def parameter_counter(model: PreTrainedModel, axes_of: ParameterAxes) -> Callable[[Widths], int]:
    """A function that returns the number of parameters for widths. It reads the model only once."""
    original = widths_of(model.config.get_text_config())
    sums: dict[tuple[Axis, ...], int] = {}
    for name, parameter in model.named_parameters():
        cut = tuple(axis for axis in axes_of[name] if axis is not None)
        sums[cut] = sums.get(cut, 0) + parameter.numel()

    def counted(widths: Widths) -> int:
        total = 0
        for cut, size in sums.items():
            for axis in cut:
                size = size // getattr(original, axis) * getattr(widths, axis)
            total += size
        return total

    return counted


@torch.no_grad()
def narrow(model: PreTrainedModel, axes_of: ParameterAxes, kept: KeptIndices) -> Callable[[str, Tensor], Tensor]:
    """Reduce the model to the kept indices, in place: weights, attributes of modules, config.

    Returns the function that made each matrix smaller, for those that are not in memory: from a parameter's name and its weights, or some
    rows of an embedding, to what is left of them.

    The result computes the same as the original model with zeros for the removed parts. The outputs of a root-mean-square norm depend on
    the number of channels, so its weights and its epsilon are scaled to compensate (`norms`). Gemma multiplies its embeddings by the root
    of the number of channels, so they are scaled, too, and the last norm is scaled back if the output head is the same matrix.

    Raises:
        UnsupportedModel: the narrower config makes other shapes or attributes than the cut; nothing was changed.
    """
    text = model.config.get_text_config()
    original = widths_of(text)
    widths = Widths(
        len(kept.neurons[0]) if kept.neurons is not None else original.neurons,
        len(kept.groups[0]) if kept.groups is not None else original.groups,
        len(kept.hidden) if kept.hidden is not None else original.hidden,
    )
    rebuilt = _rebuilt(model, widths)
    _check_shapes(model, rebuilt, axes_of, widths)
    attributes = _changed_attributes(model, rebuilt)
    layer_of = _layer_numbers(model)
    factors: dict[str, float] = {}
    if kept.hidden is not None:
        norms = channel_norms(model, axes_of)
        factors = _compensate(model, norms, original.hidden / widths.hidden, attributes, layer_of)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for linear in inner_norm_linears(model, norms, rebuilt):
            factors |= {names[id(parameter)]: math.sqrt(original.hidden / widths.hidden) for parameter in linear.parameters()}

    def cut(name: str, weights: Tensor) -> Tensor:
        if name in factors:
            weights = (weights.float() * factors[name]).to(weights.dtype)
        for dimension, axis in enumerate(axes_of[name]):
            if axis is not None and (indices_of_axis := getattr(kept, axis)) is not None:
                indices = indices_of_axis if axis == "hidden" else indices_of_axis[layer_of[name]]
                weights = weights.index_select(
                    dimension, _parameter_indices(indices, weights.shape[dimension], original, axis).to(weights.device)
                )
        return weights

    for name, parameter in model.named_parameters():
        parameter.data = cut(name, parameter.data)
    for module, name, value in attributes:
        setattr(module, name, value)
        if name == "scalar_embed_scale":
            module.get_buffer("embed_scale").fill_(value)
    new = rebuilt.config.get_text_config()
    for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim", *EPSILON_SETTINGS):
        if hasattr(new, name):
            setattr(text, name, getattr(new, name))
    return cut


def _rebuilt(model: PreTrainedModel, widths: Widths) -> PreTrainedModel:
    """The model that transformers builds from the config with other widths, without weights."""
    with torch.device("meta"):
        rebuilt: PreTrainedModel = type(model)(with_widths(model.config, widths))
    return rebuilt


def _doubling(ours: Tensor, theirs: Tensor | None) -> tuple[bool, ...] | None:
    """For each dimension, whether it is twice as large; `None` if one is neither twice as large nor equal."""
    if theirs is None or theirs.dim() != ours.dim():
        return None
    ratios = [new / old for old, new in zip(ours.shape, theirs.shape, strict=True)]
    return tuple(ratio == 2 for ratio in ratios) if set(ratios) <= {1, 2} else None


def _expected_neurons(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The expected dimensions of neurons: rows of gate and up, columns of down."""
    return _expected(
        model, [(linear, row) for mlp in gated_mlps(model) for linear, row in _rows(mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    )


def _expected_groups(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The expected dimensions of heads: rows of the query, key and value projections, columns of the output projection."""
    found = attentions(model)
    return _expected(model, [pair for one in found for pair in _rows(one.q_proj, one.k_proj, one.v_proj, one.o_proj)])


def _expected_channels(model: PreTrainedModel) -> dict[str, tuple[bool, ...]]:
    """The expected dimensions of channels inside the blocks: rows of the output and down projections, columns of all others."""
    pairs = []
    for attention, mlp in zip(attentions(model), gated_mlps(model), strict=True):
        readers = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
        pairs += [*((linear, False) for linear in readers), (attention.o_proj, True), (mlp.down_proj, True)]
    return _expected(model, pairs)


def _rows(*linears: nn.Linear) -> list[tuple[nn.Linear, bool]]:
    """Pairs of a linear layer and whether it writes the axis; the last one reads it."""
    return [(linear, number < len(linears) - 1) for number, linear in enumerate(linears)]


def _expected(model: PreTrainedModel, linears: Sequence[tuple[nn.Linear, bool]]) -> dict[str, tuple[bool, ...]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[bool, ...]] = {}
    for linear, writes in linears:
        found[names[id(linear.weight)]] = (writes, not writes)
        if linear.bias is not None:
            found[names[id(linear.bias)]] = (writes,)
    return found


def _parameter_indices(indices: Tensor, size: int, original: Widths, axis: Axis) -> Tensor:
    """Indices into a dimension of a parameter, in which each index of the axis covers several neighbours (a head, all heads of a group)."""
    span = size // int(getattr(original, axis))
    return (indices[:, None] * span + torch.arange(span)).flatten()


def _layer_numbers(model: PreTrainedModel) -> dict[str, int]:
    """The number of the decoder layer of each parameter that is in one."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = decoder_layers(model)
    return {names[id(parameter)]: number for number, layer in enumerate(layers) for parameter in layer.parameters()}


def _check_shapes(model: PreTrainedModel, rebuilt: PreTrainedModel, axes_of: ParameterAxes, widths: Widths) -> None:
    original = widths_of(model.config.get_text_config())
    theirs = {**dict(rebuilt.named_parameters()), **dict(rebuilt.named_buffers())}
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        axes = axes_of.get(name, (None,) * tensor.dim())
        shape = tuple(
            size if axis is None else size // getattr(original, axis) * getattr(widths, axis)
            for size, axis in zip(tensor.shape, axes, strict=True)
        )
        if name not in theirs or tuple(theirs[name].shape) != shape:
            rebuilt_shape = tuple(theirs[name].shape) if name in theirs else "not there"
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning would leave {name} with shape {shape}, and its config makes it {rebuilt_shape}"
            )


def _changed_attributes(model: PreTrainedModel, rebuilt: PreTrainedModel) -> list[tuple[nn.Module, str, int | float]]:
    """The attributes of modules that the narrower config changes, with their new values.

    Raises:
        UnsupportedModel: an unknown attribute changes.
    """
    theirs = dict(rebuilt.named_modules())
    found: list[tuple[nn.Module, str, int | float]] = []
    for path, module in model.named_modules():
        for name, value in vars(theirs[path]).items():
            old = getattr(module, name, None)
            if name.startswith("_") or isinstance(value, bool) or not isinstance(value, int | float | tuple) or old == value:
                continue
            if name not in DERIVED_ATTRIBUTES or isinstance(value, tuple):
                raise UnsupportedModel(
                    f"{model.config.model_type}: width pruning would change {path}.{name} from {old} to {value}, "
                    "and what that does is not known"
                )
            found.append((module, name, value))
    return found


def _compensate(
    model: PreTrainedModel,
    norms: Mapping[str, nn.Module],
    ratio: float,
    attributes: Sequence[tuple[nn.Module, str, int | float]],
    layer_of: Mapping[str, int],
) -> dict[str, float]:
    """Scale the norms for `ratio`, the channels before over those that stay; gives the factor of the embeddings, by their name."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    factors, scaled = {}, 1.0
    for module, name, value in attributes:
        if name == "scalar_embed_scale":
            weight = module.get_parameter("weight")
            # The forward pass rounds both scales to the dtype of the weights.
            old, new = (torch.tensor(float(scale)).to(weight.dtype).item() for scale in (getattr(module, name), value))
            scaled = old / new
            factors[names[id(weight)]] = scaled
    tied = head is not None and head.weight is embedding.weight
    for name, norm in norms.items():
        scale_norm(model, name, norm, math.sqrt(ratio) / (scaled if tied and name not in layer_of else 1.0))
    return factors
