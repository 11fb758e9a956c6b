"""Quantities of a variant by which one is picked, for the page's table and its panel alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compresslab.density.time.inference_time import bytes_a_token, cache_bytes
from compresslab.recipe.schema import Workload
from compresslab.records import Interval, Size, StudyRecord, Timing, VariantRecord
from compresslab.report.facts import comparison_with, mean_accuracy, was_built


def memory_at_inference(variant: VariantRecord, study: StudyRecord) -> float | None:
    """Bytes that the weights as stored and the keys and values of the study's request take; `None` where size or request are unknown.

    Activations and what a runtime keeps for itself are not counted. Keys and values are counted at 16 bits, at the request's end.
    """
    size, request = _built_size(variant, study), _request(study)
    if size is None or request is None or (cache := cache_bytes(variant.steps[-1].shape, request)) is None:
        return None
    return size.stored_bytes + cache


def bytes_of_a_token(variant: VariantRecord, study: StudyRecord) -> float | None:
    """Bytes that are read and written for each generated token of the study's request; `None` where size or request are unknown."""
    size, request = _built_size(variant, study), _request(study)
    return None if size is None or request is None else bytes_a_token(variant.steps[-1].shape, size, request)


def measured_seconds(variant: VariantRecord, study: StudyRecord) -> float | None:
    """Seconds of one request, of which those of two variants compare; `None` where the variant was not timed.

    They are the root's seconds times the ratios to the parents down the chain. A variant and its parent are timed in turn, so that the
    machine's load cancels in their ratio; the seconds of two variants, timed apart, may differ by that load alone. Where the parent was
    not timed with the same request on the same machine, they are the variant's own.
    """
    by_name, ratio, own = {one.name: one for one in study.variants}, 1.0, variant.timing
    if own is None:
        return None
    at, timing = variant, own
    while timing.ratio is not None:
        parent = by_name.get(at.parent)
        if parent is None or parent.timing is None or request_timed(parent.timing) != request_timed(own):
            return own.seconds
        ratio, at, timing = ratio * timing.ratio, parent, parent.timing
    return timing.seconds * ratio


def request_timed(timing: Timing) -> tuple[str, int, int, int]:
    """Machine, batch, tokens read and tokens written of a timing."""
    return timing.machine, timing.batch, timing.prompt, timing.decode


def accuracy_change(variant: VariantRecord, relation: str, tasks: Sequence[str]) -> Interval | None:
    """Mean over `tasks` of the accuracy's difference from the parent or the root, with its 95% interval.

    The interval is that of a mean of independent differences: tasks have different items. `None` where a task lacks a difference.
    """
    comparison = comparison_with(variant, relation) if variant.parent else None
    found = {task.task: task.accuracy for task in comparison.tasks} if comparison else {}
    if not tasks or not all(task in found for task in tasks) or mean_accuracy(variant, tasks) is None:
        return None
    intervals = [found[task] for task in tasks]
    value = sum(interval.value for interval in intervals) / len(intervals)
    below, above = (
        math.sqrt(sum(part**2 for part in parts)) / len(intervals)
        for parts in zip(*((one.value - one.low, one.high - one.value) for one in intervals), strict=True)
    )
    return Interval(value=value, low=value - below, high=value + above)


def seconds_to_make(variant: VariantRecord) -> float | None:
    """Seconds that the variant's last step took when it ran; `None` where it made nothing: a base and an adopted model were only loaded."""
    cost = variant.costs.get("model")
    loaded = not variant.parent or any(step.kind == "adopt" for step in variant.steps[-1:])
    return None if cost is None or loaded else cost.seconds


def _built_size(variant: VariantRecord, study: StudyRecord) -> Size | None:
    parent = next((one for one in study.variants if one.name == variant.parent), None)
    return variant.size if was_built(variant, {parent.name: parent} if parent else {}) else None


def _request(study: StudyRecord) -> Workload | None:
    return Workload(**study.workload) if study.workload else None
