"""Depth pruning: drop the layers that change the hidden states least."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from compresslab.algorithms.block_influence import block_influence
from compresslab.errors import BadInput
from compresslab.models.anatomy import decoder_layers
from compresslab.models.load import Loaded
from compresslab.recipe.schema import PruneDepth
from compresslab.steps.calibration import batches, hooked
from compresslab.steps.contract import Context, Outcome, Progress


def apply(loaded: Loaded, config: PruneDepth, context: Context) -> Outcome:
    """Keep the `keep` layers of highest block influence, in their order. Needs calibration text.

    Raises:
        BadInput: `keep` is not below the number of layers.
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
    return [float(value) for value in total / sequences]


def drop_layers(model: PreTrainedModel, kept: list[int]) -> None:
    """Keep only the layers `kept` and make the config and the cache indices agree with them."""
    layers = decoder_layers(model)
    survivors = nn.ModuleList(layers[number] for number in kept)
    for index, layer in enumerate(survivors):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010, modules take any attribute, type checkers do not
    model.base_model.layers = survivors
    text = model.config.get_text_config()
    # Architectures that mix layer types list one per layer; `max_window_layers` and the like are counts and stay.
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[number] for number in kept]
    text.num_hidden_layers = len(kept)
