"""Data that one pass gathers for several steps: a model's statistics on the calibration text, or a teacher's logits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from compresslab.methods.depth import PruneDepth, kept_layers
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.distill import Distill
from compresslab.methods.settings import StepConfig
from compresslab.plan.graph import Gathered
from compresslab.recipe.schema import Calibration
from compresslab.recipe.steps import Step

GATHER_MODULES: dict[Gathered, str] = {
    "activations": "compresslab.models.calibration.statistics",
    "grams": "compresslab.models.calibration.statistics",
    "removals": "compresslab.models.calibration.removals",
    "logits": "compresslab.models.calibration.stored_logits",
}


class GatherRequest(NamedTuple):
    """A request for the data `gathers` of the model `model` (a key) on the text `text` (a digest).

    `replicate` is what was added to the seed of that text.
    """

    model: str
    gathers: Gathered
    text: str
    replicate: int = 0


def gathers_of(step: Step) -> Gathered | None:
    """The gathered data that a step reads, if any."""
    config = step.config
    if isinstance(config, PruneDepth) and config.by == "loss":
        return "removals"
    if isinstance(config, Distill):
        return "logits" if config.top_k is not None else None
    return step.method.statistics


def gather_settings(gathers: Gathered, readers: Iterable[StepConfig]) -> list[object]:
    """The readers' settings that decide how much is gathered, for the node's key."""
    if gathers == "removals":
        found = {(config.keep, config.parameters) for config in readers if isinstance(config, PruneDepth)}
    elif gathers == "logits":
        found = {(config.top_k, config.tokens) for config in readers if isinstance(config, Distill)}
    else:
        found = set()
    return sorted(map(list, found), key=json.dumps)


def serving_requests(requests: Iterable[GatherRequest]) -> dict[GatherRequest, GatherRequest]:
    """For each request the one whose result serves it: second moments include the norms of the activations."""
    known = set(requests)
    return {
        request: larger if (larger := request._replace(gathers="grams")) in known and request.gathers == "activations" else request
        for request in known
    }


class StoredLogits(NamedTuple):
    """The size of a teacher's stored logits: number of tokens, and bytes of the file."""

    tokens: int
    bytes: int


def stored_logits_size(readers: Iterable[StepConfig], available: int, vocabulary: int) -> StoredLogits:
    """The size of the logits that some distill steps read: as many tokens as the longest step reads, at most `available`."""
    configs = [config for config in readers if isinstance(config, Distill)]
    tokens = min(available, max(config.tokens for config in configs))
    index_bytes = 1 if vocabulary <= 2**8 else 2 if vocabulary <= 2**16 else 4
    return StoredLogits(tokens, tokens * ((configs[0].top_k or 1) * (index_bytes + 2) + 2))


def gathering_devices(readers: Iterable[StepConfig], calibration: Calibration) -> int:
    """How many devices gather what some steps read: as their text says; for a teacher's logits, as the step says that wants most."""
    distilling = [config.teacher_devices for config in readers if isinstance(config, Distill)]
    return max(distilling) if distilling else calibration.devices


def removal_passes(readers: Iterable[StepConfig], model: Dimensions) -> float:
    """Passes over the calibration text for ordering layers by loss. The layers before a removed one are computed once."""
    fewest = min(kept_layers(config, model) for config in readers if isinstance(config, PruneDepth))
    return max(1.0, sum(model.layers - removed for removed in range(model.layers - fewest)) / 2)
