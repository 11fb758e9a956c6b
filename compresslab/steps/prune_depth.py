"""Depth pruning: drop the layers that change the hidden states least."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.algorithms.block_influence import block_influence
from compresslab.errors import BadInput, UnsupportedModel
from compresslab.models.anatomy import decoder_layers
from compresslab.models.load import Loaded
from compresslab.models.text import batches
from compresslab.recipe.schema import PruneDepth
from compresslab.steps.calibration import check_finite_scores, hooked
from compresslab.steps.contract import Context, Outcome, Progress


def apply(loaded: Loaded, config: PruneDepth, context: Context) -> Outcome:
    """Keep the `keep` layers of highest block influence, in their order. Needs calibration text.

    Raises:
        BadInput: `keep` is not below the number of layers.
        UnsupportedModel: the layers are in no list that we know, or one cannot take the place of a dropped one.
    """
    assert context.text is not None
    layers = decoder_layers(loaded.model)
    keep = kept_layers(config.keep, len(layers))
    influence = layer_influence(loaded.model, context.text.ids, context.progress)
    kept = sorted(sorted(range(len(layers)), key=lambda number: (-influence[number], number))[:keep])
    drop_layers(loaded.model, kept)
    dropped = [number for number in range(len(layers)) if number not in kept]
    return Outcome(
        loaded.model,
        calibration_tokens=context.text.ids.numel(),
        details={"dropped_layers": dropped, "block_influence": [round(value, 6) for value in influence]},
    )


def kept_layers(keep: int | float, layers: int) -> int:
    """How many of `layers` stay.

    Raises:
        BadInput: none or all would stay.
    """
    count = keep if isinstance(keep, int) else round(keep * layers)
    if not 0 < count < layers:
        raise BadInput(f"prune depth: keep {keep} of {layers} layers leaves {count}; it must leave at least 1 and drop at least 1")
    return count


@torch.no_grad()
def layer_influence(model: PreTrainedModel, ids: torch.Tensor, progress: Progress) -> list[float]:
    """Block influence of each layer over calibration ids (sequences, length)."""
    layers = decoder_layers(model)
    total = torch.zeros(len(layers), dtype=torch.float64)
    sequences = 0

    def measure(number: int) -> object:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            after = output[0] if isinstance(output, tuple) else output
            assert isinstance(after, torch.Tensor)
            total[number] += block_influence(inputs[0], after).item() * after.shape[0]

        return hook

    with hooked([(layer, measure(number)) for number, layer in enumerate(layers)]):
        for batch in batches(ids):
            model(input_ids=batch.to(model.device), use_cache=False, logits_to_keep=1)
            sequences += batch.shape[0]
            progress(sequences / ids.shape[0], "block influence")
    influence = [float(value) for value in total / sequences]
    check_finite_scores(influence, "block influence")
    return influence


def drop_layers(model: PreTrainedModel, kept: list[int]) -> None:
    """Keep only the layers `kept` and make the config and the cache indices agree with them.

    Raises:
        UnsupportedModel: a kept layer would be another kind of layer at its new place; nothing was changed.
    """
    layers = decoder_layers(model)
    config = shortened(model.config, kept)
    check_places(model, config, kept)
    survivors = nn.ModuleList(layers[number] for number in kept)
    for index, layer in enumerate(survivors):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010, modules take any attribute, type checkers do not
    model.base_model.layers = survivors
    # In place: every module holds the same config.
    text, new = model.config.get_text_config(), config.get_text_config()
    for name in ("num_hidden_layers", *per_layer_lists(text)):
        setattr(text, name, getattr(new, name))


def shortened(config: PretrainedConfig, kept: list[int]) -> PretrainedConfig:
    """A copy of the config for the layers `kept` alone; what it lists layer by layer is cut to them."""
    copy = deepcopy(config)
    text = copy.get_text_config()
    for name in per_layer_lists(text):
        setattr(text, name, [getattr(text, name)[number] for number in kept])
    text.num_hidden_layers = len(kept)
    return copy


def per_layer_lists(text: PretrainedConfig) -> list[str]:
    """Settings with one entry a layer: `layer_types`, `no_rope_layers`, `mlp_layer_types` and what else there may be."""
    count = text.num_hidden_layers
    lists = (name for name, value in vars(text).items() if isinstance(value, list | tuple) and len(value) == count)
    return [name for name in lists if "token" not in name and name != "architectures"]


def check_places(model: PreTrainedModel, config: PretrainedConfig, kept: list[int]) -> None:
    """Refuse if `config` makes another layer at a place than the one that would stand there.

    Some architectures derive a layer's kind from its number (every fourth one without positions, the first ones
    dense), and the saved folder is rebuilt from the config.

    Raises:
        UnsupportedModel: naming the layer and what differs.
    """
    with torch.device("meta"):
        rebuilt = decoder_layers(type(model)(config))
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


def traits(layer: nn.Module) -> dict[str, object]:
    """What tells kinds of layers apart: the shapes of parameters, the classes of modules, and their plain settings."""
    found: dict[str, object] = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    for path, module in layer.named_modules():
        found[path or "layer"] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str) and not name.startswith("_") and name not in ("layer_idx", "training"):
                found[f"{path}.{name}".lstrip(".")] = value
    return found
