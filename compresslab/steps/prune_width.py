"""Width pruning: drops the least active neurons, heads and channels of every layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compresslab.algorithms.channel_importance import channel_sum_of_squares
from compresslab.algorithms.head_importance import group_sum_of_squares
from compresslab.algorithms.neuron_importance import most_important, share_lost
from compresslab.methods.amounts import Widths
from compresslab.methods.width import PruneWidth
from compresslab.models.anatomy import decoder_layers
from compresslab.models.calibration.statistics import Statistics
from compresslab.models.load import Loaded
from compresslab.models.surgery.width import AXES, KeptIndices, asked_widths, cut_axes, narrow, parameter_axes, widths_of
from compresslab.steps.contract import Context, StepResult, layers_in_turn, statistics_of


def apply(loaded: Loaded, config: PruneWidth, context: Context) -> StepResult:
    """Keep the most active neurons and groups of each layer, and channels of all layers. The saved matrices are smaller.

    Needs calibration text. All axes are cut by the statistics of the unpruned model.

    Raises:
        BadInput: the settings leave nothing or all of an axis, or a model that transformers does not load.
        UnsupportedModel: an axis cannot be cut in this architecture.
        RunFailed: the activations are not finite.
    """
    model = loaded.model
    axes_of = parameter_axes(model, cut_axes(config))
    original, widths = widths_of(model.config.get_text_config()), asked_widths(model, config, axes_of)
    statistics = statistics_of(loaded, context)
    kept, lost = most_active(statistics, original, widths, len(decoder_layers(model)))
    cut_matrix = narrow(model, axes_of, kept)
    if loaded.weights is not None:
        loaded.weights.change = cut_matrix
    for number, _ in enumerate(layers_in_turn(loaded, context)):
        if context.gathered is not None:  # else the calibration before has told its progress up to the end
            context.progress((number + 1) / len(statistics.block_influence), f"cutting, layer {number + 1} of {statistics.layers}")
    cut = [axis for axis in AXES if getattr(widths, axis) < getattr(original, axis)]
    sizes = {f"{axis}_{when}": getattr(size, axis) for axis in cut for when, size in (("before", original), ("after", widths))}
    return StepResult(model, calibration_tokens=statistics.tokens, details={**sizes, "activation_energy_lost": lost})


def most_active(statistics: Statistics, original: Widths, widths: Widths, layers: int) -> tuple[KeptIndices, dict[str, Any]]:
    """The indices that stay on each axis, and the share of the activations' sum of squares that is lost with the others."""
    kept, lost = KeptIndices(), {}
    if widths.neurons < original.neurons:
        neurons = [statistics.sum_of_squares(number, "mlp.down_proj") for number in range(layers)]
        kept = kept._replace(neurons=[most_important(sum_of_squares, widths.neurons) for sum_of_squares in neurons])
        lost["neurons"] = _lost(neurons, kept.neurons or [])
    if widths.groups < original.groups:
        groups = [group_sum_of_squares(statistics.sum_of_squares(number, "self_attn.o_proj"), original.groups) for number in range(layers)]
        kept = kept._replace(groups=[most_important(sum_of_squares, widths.groups) for sum_of_squares in groups])
        lost["groups"] = _lost(groups, kept.groups or [])
    if widths.hidden < original.hidden:
        names = ("self_attn.q_proj", "mlp.gate_proj")
        hidden = channel_sum_of_squares(statistics.sum_of_squares(number, name) for number in range(layers) for name in names)
        channels = most_important(hidden, widths.hidden)
        kept = kept._replace(hidden=channels)
        lost["hidden"] = _lost([hidden], [channels])
    return kept, lost


def _lost(sums_of_squares: list[Tensor], kept: Any) -> list[float]:
    return [round(share_lost(sum_of_squares, indices), 6) for sum_of_squares, indices in zip(sums_of_squares, kept, strict=True)]
