"""Width pruning: make every MLP narrower by dropping its least active neurons."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from compresslab.algorithms.neuron_importance import activation_energy, kept_neurons
from compresslab.errors import BadInput
from compresslab.models.anatomy import GatedMLP, gated_mlps
from compresslab.models.load import Loaded
from compresslab.models.text import batches
from compresslab.recipe.schema import PruneWidth
from compresslab.steps.calibration import check_finite_scores, hooked
from compresslab.steps.contract import Context, Outcome, Progress


def apply(loaded: Loaded, config: PruneWidth, context: Context) -> Outcome:
    """Keep the most active neurons of each MLP; the saved matrices are really narrower. Needs calibration text.

    Raises:
        BadInput: `keep` is not below the MLP's width.
    """
    assert context.text is not None
    mlps = gated_mlps(loaded.model)
    width = loaded.model.config.get_text_config().intermediate_size
    keep = kept_width(config, width)
    importance = neuron_importance(loaded.model, context.text.ids, context.progress)
    lost = []
    for mlp, energy in zip(mlps, importance, strict=True):
        kept = kept_neurons(energy, keep)
        lost.append(_share_lost(energy, kept))
        narrow(mlp, kept)
    loaded.model.config.get_text_config().intermediate_size = keep
    return Outcome(
        loaded.model,
        calibration_tokens=context.text.ids.numel(),
        details={"neurons_before": width, "neurons_after": keep, "activation_energy_lost": lost},
    )


def kept_width(config: PruneWidth, width: int) -> int:
    """How many of `width` neurons stay: the number given, or the share rounded to a multiple.

    Raises:
        BadInput: none or all would stay.
    """
    count = config.keep if isinstance(config.keep, int) else round(config.keep * width / config.multiple) * config.multiple
    if not 0 < count < width:
        raise BadInput(f"prune width: keep {config.keep} of {width} neurons leaves {count}; it must leave at least 1 and drop at least 1")
    return count


@torch.no_grad()
def neuron_importance(model: PreTrainedModel, ids: torch.Tensor, progress: Progress) -> list[torch.Tensor]:
    """Activation energy of each neuron of each MLP, one (neurons,) tensor a layer, over ids (sequences, length)."""
    mlps = gated_mlps(model)
    energy = [torch.zeros(mlp.down_proj.in_features, dtype=torch.float64) for mlp in mlps]

    def measure(number: int) -> object:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: object) -> None:
            energy[number] += activation_energy(inputs[0]).cpu()

        return hook

    done = 0
    with hooked([(mlp.down_proj, measure(number)) for number, mlp in enumerate(mlps)]):
        for batch in batches(ids):
            model(input_ids=batch.to(model.device), use_cache=False, logits_to_keep=1)
            done += batch.shape[0]
            progress(done / ids.shape[0], "neuron importance")
    check_finite_scores([float(values.sum()) for values in energy], "neuron importance")
    return energy


def _share_lost(energy: torch.Tensor, kept: torch.Tensor) -> float:
    total = float(energy.sum())
    return round(1 - float(energy[kept].sum()) / total, 6) if total else 0.0


def narrow(mlp: GatedMLP, kept: torch.Tensor) -> None:
    """Cut an MLP down to the neurons `kept`: rows of gate and up, columns of down."""
    _cut(mlp.gate_proj, kept, 0)
    _cut(mlp.up_proj, kept, 0)
    _cut(mlp.down_proj, kept, 1)
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = len(kept)


def _cut(linear: nn.Linear, kept: torch.Tensor, dimension: int) -> None:
    kept = kept.to(linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dimension, kept), requires_grad=linear.weight.requires_grad)
    if dimension == 0 and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[kept], requires_grad=linear.bias.requires_grad)
    linear.out_features, linear.in_features = linear.weight.shape
