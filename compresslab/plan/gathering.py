"""What several steps of a study read and one pass gathers: a model's statistics on the calibration text, a teacher's logits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from compresslab.plan.graph import Gathered
from compresslab.recipe.steps import Distill, PruneDepth, Step, StepConfig
from compresslab.registry import method

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
    return method(step.kind, config.method).statistics if hasattr(config, "method") else None


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
