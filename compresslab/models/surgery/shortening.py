"""Removes layers from a model, and checks first whether the others work at their new places."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.models.anatomy import decoder_layers, layers_name, text_model

# The settings of transformers' configurations that have an entry for each layer, where they are lists. Lists of the numbers of layers
# (`mlp_only_layers`, Llama 4's `moe_layers`) are none: `check_places` refuses what they would make of a layer at another place.
PER_LAYER = (
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "indexer_types",
    "no_rope_layers",
    "layer_rope_theta",
    "attention_layers",
    "attn_layers",
    "sliding_windows",
    "activation_sparsity_pattern",
    "intermediate_size",
    "layers_num_experts",
    "num_experts",
    "moe_topk",
    "num_attention_heads",
    "num_key_value_heads",
    "num_attention_heads_per_layer",
    "num_key_value_heads_per_layer",
    "swiglu_limits",
    "swiglu_limits_shared",
)


def drop_layers(model: PreTrainedModel, kept: list[int]) -> None:
    """Keep only the layers `kept` and make the config and the cache indices agree with them.

    Raises:
        UnsupportedModel: the config makes another kind of layer at the new place of a kept layer; nothing was changed.
    """
    layers = decoder_layers(model)
    config = shortened(model.config, kept)
    check_places(model, kept)
    remaining = nn.ModuleList(layers[number] for number in kept)
    for index, layer in enumerate(remaining):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010, modules take any attribute, type checkers do not
    setattr(text_model(model), layers_name(model), remaining)
    # Changed in place, since all modules share the config object.
    text, new = model.config.get_text_config(), config.get_text_config()
    for name in ("num_hidden_layers", *per_layer_lists(text)):
        setattr(text, name, getattr(new, name))
    _drop_buffers(model)


def _drop_buffers(model: PreTrainedModel) -> None:
    """Remove the buffers that a model of this config lacks: the frequencies of a kind of layer of which none is left (Gemma 3)."""
    with torch.device("meta"):
        kept = {name for name, _ in type(model)(deepcopy(model.config)).named_buffers()}
    for name in [name for name, _ in model.named_buffers() if name not in kept]:
        owner, _, attribute = name.rpartition(".")
        delattr(model.get_submodule(owner), attribute)


def shortened(config: PretrainedConfig, kept: list[int]) -> PretrainedConfig:
    """A copy of the config for the layers `kept`, with its lists of one entry per layer reduced to them."""
    copy = deepcopy(config)
    text = copy.get_text_config()
    for name in per_layer_lists(text):
        setattr(text, name, [getattr(text, name)[number] for number in kept])
    text.num_hidden_layers = len(kept)
    return copy


def per_layer_lists(text: PretrainedConfig) -> list[str]:
    """Names of the settings with one entry per layer, such as `layer_types`, `no_rope_layers` and `mlp_layer_types`.

    They are known by name: other lists may be as long as there are layers by chance, such as Mamba 2's `time_step_limit` at two layers.
    """
    count = text.num_hidden_layers
    return [name for name in PER_LAYER if isinstance(value := vars(text).get(name), list | tuple) and len(value) == count]


def check_places(model: PreTrainedModel, kept: list[int]) -> None:
    """Refuse layers that the shortened config would replace by layers of another kind.

    Some architectures derive a layer's kind from its number (every fourth one without positions, the first ones dense), and a saved
    folder is rebuilt from the config.

    Raises:
        UnsupportedModel: the message names the layer and the difference.
    """
    with torch.device("meta"):
        rebuilt = decoder_layers(type(model)(shortened(model.config, kept)))
    layers = decoder_layers(model)
    for place, number in enumerate(kept):
        ours, theirs = traits(layers[number]), traits(rebuilt[place])
        differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if differing:
            name = differing[0]
            raise UnsupportedModel(
                f"{model.config.model_type}: prune depth would move layer {number} to place {place}, where its config makes another kind "
                f"of layer ({name} is {ours.get(name)} in the one and {theirs.get(name)} in the other)"
            )


def refusal_to_drop(model: PreTrainedModel, dropped: list[int]) -> str:
    """Why the layers `dropped` cannot be removed; empty if they can."""
    try:
        check_places(model, [number for number in range(len(decoder_layers(model))) if number not in dropped])
    except UnsupportedModel as error:
        return str(error)
    return ""


def traits(layer: nn.Module) -> dict[str, object]:
    """The properties that distinguish kinds of layers: shapes of parameters, classes of modules, and their plain settings."""
    found: dict[str, object] = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    for path, module in layer.named_modules():
        found[path or "layer"] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str) and not name.startswith("_") and name not in ("layer_idx", "training"):
                found[f"{path}.{name}".lstrip(".")] = value
    return found
