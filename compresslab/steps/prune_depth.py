"""Depth pruning: drops layers that change the hidden states least, or without which the loss is lowest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from compresslab.algorithms.contiguous_run import runs_by_distance
from compresslab.errors import BadInput, UnsupportedModel
from compresslab.methods.amounts import Misfit
from compresslab.methods.depth import PruneDepth, layers_left
from compresslab.models.anatomy import decoder_layers, parameters_of
from compresslab.models.calibration.removals import order_temporarily, read_removals
from compresslab.models.calibration.statistics import Statistics
from compresslab.models.computing import computing_temporarily
from compresslab.models.load import Loaded
from compresslab.models.surgery.shortening import drop_layers, refusal_to_drop
from compresslab.steps.checks import check_finite_scores
from compresslab.steps.contract import Context, StepResult, statistics_of


class Ranking(NamedTuple):
    """An order of layers to drop, from calibration text.

    Attributes:
        dropped: the layers to drop for a given number. tokens: number of tokens of the text. details: record details for a given number.
    """

    dropped: Callable[[int], Sequence[int]]
    tokens: int
    details: Callable[[int], Mapping[str, Any]]


def apply(loaded: Loaded, config: PruneDepth, context: Context) -> StepResult:
    """Keep a number of layers, or as many as fit into the parameters, in their order. Needs calibration text.

    Raises:
        BadInput: the settings leave no layer, or all of them.
        UnsupportedModel: the list of layers is not known, or a layer does not work at the place of a dropped one.
        RunFailed: the activations are not finite.
    """
    model = loaded.model
    sizes = [parameters_of(layer) for layer in decoder_layers(model)]
    # Dropping the largest layers first shows whether the target can be reached, before statistics are gathered.
    number_to_keep(config, model, lambda count: sorted(range(len(sizes)), key=lambda number: -sizes[number])[:count])
    ranking = RANKINGS[config.by](loaded, config, context)
    keep = number_to_keep(config, model, ranking.dropped)
    dropped = sorted(ranking.dropped(len(sizes) - keep))
    drop_layers(model, [number for number in range(len(sizes)) if number not in dropped])
    details = {"dropped_layers": dropped, **ranking.details(len(dropped))}
    return StepResult(model, calibration_tokens=ranking.tokens, details=details)


def number_to_keep(config: PruneDepth, model: PreTrainedModel, dropped: Callable[[int], Sequence[int]]) -> int:
    """The number of layers that stay.

    Args:
        dropped: the layers to drop for a given number.

    Raises:
        BadInput: none or all would stay, or one layer alone has too many parameters.
    """
    sizes = [parameters_of(layer) for layer in decoder_layers(model)]
    total = parameters_of(model)
    try:
        return layers_left(config, len(sizes), lambda count: total - sum(sizes[number] for number in dropped(len(sizes) - count)))
    except Misfit as misfit:
        raise BadInput(f"prune depth: {misfit}") from misfit


def by_influence(loaded: Loaded, config: PruneDepth, context: Context) -> Ranking:
    """Drop the layers that change the hidden states least, the later one first if two are equal.

    The record contains the margin of the choice: the relative difference in influence between the first layer that stays and the last
    one dropped. Another compute dtype changes influences by some tenths of a percent, so another machine may choose differently if the
    margin is smaller.
    """
    del config
    statistics = statistics_of(loaded, context)
    influence = statistics.block_influence
    check_finite_scores(influence, "block influence")
    order = sorted(range(len(influence)), key=lambda number: (influence[number], -number))

    def details(count: int) -> dict[str, Any]:
        last_dropped, first_kept = influence[order[count - 1]], influence[order[count]]  # at least one layer is dropped and one stays
        margin = round(first_kept / last_dropped - 1, 4) if last_dropped > 0 else None
        return {"block_influence": [round(value, 6) for value in influence], "margin": margin}

    return Ranking(lambda count: order[:count], statistics.tokens, details)


def by_run(loaded: Loaded, config: PruneDepth, context: Context) -> Ranking:
    """Drop the run of consecutive layers that changes the last token's hidden state least, of the runs that can be dropped."""
    del config
    statistics = statistics_of(loaded, context)
    check_finite_distances(statistics)

    def dropped(count: int) -> Sequence[int]:
        refusals = []
        for first in runs_by_distance(statistics.angular_distance, count) if count else []:
            run = list(range(first, first + count))
            refusal = refusal_to_drop(loaded.model, run)
            if not refusal:
                return run
            refusals.append(refusal)
        if refusals:
            raise UnsupportedModel(f"{refusals[0]}; no run of {count} layers can go")
        return []

    def distances(count: int) -> Mapping[str, Any]:
        return {"angular_distance": [round(value, 6) for value in statistics.angular_distance.diagonal(count).tolist()]}

    return Ranking(dropped, statistics.tokens, distances)


def check_finite_distances(statistics: Statistics) -> None:
    """Check that the angular distances are finite. Raises RunFailed."""
    check_finite_scores(statistics.angular_distance[0, 1:].tolist(), "angular distance")


def by_loss(loaded: Loaded, config: PruneDepth, context: Context) -> Ranking:
    """Drop layers one by one, each time the one without which the loss is lowest."""
    if context.gathered is not None:
        removals = read_removals(context.gathered)
    else:
        assert context.text is not None
        with computing_temporarily(loaded.model, context.dtype(loaded.model)) as model:
            removals = order_temporarily(model, context.text, config, context.progress)

    def dropped(count: int) -> Sequence[int]:
        if count > len(removals.order):
            raise UnsupportedModel(f"{removals.stopped}; after {len(removals.order)} layers no other can go")
        return removals.order[:count]

    def losses(count: int) -> Mapping[str, Any]:
        after = [round(loss, 6) for loss in removals.losses[:count]]
        return {"removal_order": removals.order[:count], "loss_before": round(removals.whole, 6), "losses_after": after}

    return Ranking(dropped, removals.tokens, losses)


RANKINGS: dict[str, Callable[[Loaded, PruneDepth, Context], Ranking]] = {
    "block-influence": by_influence,
    "angular-distance": by_run,
    "loss": by_loss,
}
