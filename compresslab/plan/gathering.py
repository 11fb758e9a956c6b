"""What several steps of a study read and one pass gathers: a model's statistics on the calibration text, a teacher's logits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from compresslab.methods.depth import PruneDepth, kept
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.distill import Distill
from compresslab.methods.settings import StepConfig
from compresslab.plan.graph import Gathered
from compresslab.recipe.steps import Step

CODE: dict[Gathered, str] = {
    "activations": "compresslab.models.calibration.statistics",
    "grams": "compresslab.models.calibration.statistics",
    "removals": "compresslab.models.calibration.removals",
    "logits": "compresslab.models.calibration.stored_logits",
}


class GatherRequest(NamedTuple):
    """That `gathers` be gathered of the model `model` (a key) on a text, by its digest."""

    model: str
    gathers: Gathered
    text: str


def gathers_of(step: Step) -> Gathered | None:
    """What a step reads of a model beside its weights; `None` for most."""
    config = step.config
    if isinstance(config, PruneDepth) and config.by == "loss":
        return "removals"
    if isinstance(config, Distill):
        return "logits" if config.top_k is not None else None
    return step.method.statistics


def decided_by(gathers: Gathered, readers: Iterable[StepConfig]) -> list[object]:
    """Of the readers' settings what decides how much is gathered, for the node's key."""
    if gathers == "removals":
        found = {(config.keep, config.parameters) for config in readers if isinstance(config, PruneDepth)}
    elif gathers == "logits":
        found = {(config.top_k, config.tokens) for config in readers if isinstance(config, Distill)}
    else:
        found = set()
    return sorted(map(list, found), key=json.dumps)


def merged(requests: Iterable[GatherRequest]) -> dict[GatherRequest, GatherRequest]:
    """For each request the one that serves it: whoever gathers second moments has the activations' norms, too."""
    known = set(requests)
    return {
        request: more if (more := request._replace(gathers="grams")) in known and request.gathers == "activations" else request
        for request in known
    }


class StoredLogits(NamedTuple):
    """What storing a teacher's logits takes: tokens that it reads, and bytes of the file."""

    tokens: int
    bytes: int


def logits_of(readers: Iterable[StepConfig], available: int, vocabulary: int) -> StoredLogits:
    """The logits that some distill steps read: those of the longest, of which the text has no more than `available` tokens."""
    configs = [config for config in readers if isinstance(config, Distill)]
    tokens = min(available, max(config.tokens for config in configs))
    number = 1 if vocabulary <= 2**8 else 2 if vocabulary <= 2**16 else 4
    return StoredLogits(tokens, tokens * ((configs[0].top_k or 1) * (number + 2) + 2))


def removal_passes(readers: Iterable[StepConfig], model: Dimensions) -> float:
    """Passes over the calibration text that ordering layers by loss takes. What is before a layer is run once."""
    fewest = min(kept(config, model) for config in readers if isinstance(config, PruneDepth))
    return max(1.0, sum(model.layers - done for done in range(model.layers - fewest)) / 2)
