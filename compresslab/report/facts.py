"""What page and tables read out of a record: which comparison counts, which means compare, which sizes are a variant's own.

Free of pandas, because importing it takes longer than drawing the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compresslab.records import Comparison, Interval, StudyRecord, TaskScore, VariantRecord


def compared(variant: VariantRecord, relation: str) -> Comparison | None:
    """The comparison of a variant with its "parent" or "root"; for a child of the root the two are one."""
    for comparison in variant.comparisons:
        if comparison.relation == relation:
            return comparison
    if variant.parent == variant.root:
        return next(iter(variant.comparisons), None)
    return None


def judged(comparison: Comparison) -> list[tuple[str, str, Interval, str]]:
    """Every ratio of a comparison that exists, as (basis, hardware, ratio, verdict)."""
    single = [
        ("params", "", comparison.ratio, comparison.verdict),
        ("params by score", "", comparison.ratio_by_score, comparison.verdict_by_score),
        ("bits", "", comparison.ratio_bits, comparison.verdict_bits),
    ]
    timed = [("time", key, value, comparison.verdict_time.get(key, "inconclusive")) for key, value in comparison.ratio_time.items()]
    return [(basis, hardware, interval, verdict) for basis, hardware, interval, verdict in [*single, *timed] if interval is not None]


def reached(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> bool:
    """Whether the chain got to its end: a chain that broke off carries its ancestors' steps and must not show their size as its own."""
    parent = by_name.get(variant.parent)
    if parent is None:
        return bool(variant.steps) and not (variant.parent and variant.failures)
    return len(variant.steps) > len(parent.steps)


def hardware(study: StudyRecord) -> list[str]:
    """The hardware profiles for which times were modelled, this machine first."""
    names = {name: None for variant in study.variants if variant.density for name in variant.density.modelled_seconds}
    return sorted(names, key=lambda name: name != "this-machine")


def modelled_ratios(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> dict[str, float]:
    """Modelled time of one request over the parent's, by hardware profile."""
    parent = by_name.get(variant.parent)
    if variant.density is None or parent is None or parent.density is None:
        return {}
    before = parent.density.modelled_seconds
    return {name: seconds / before[name] for name, seconds in variant.density.modelled_seconds.items() if before.get(name)}


def slower_in_fact(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> bool:
    """Whether a model of time says faster than the parent where the measurement says slower (both by more than 5%)."""
    measured = variant.timing.ratio if variant.timing else None
    modelled = modelled_ratios(variant, by_name)
    return measured is not None and measured > 1.05 and any(ratio < 0.95 for ratio in modelled.values())


THREAD_WATTS, GPU_WATTS = 10, 500
"""What a busy thread and a busy GPU are taken to draw: round figures of today's servers, for an estimate that says so."""


class Spent(NamedTuple):
    """What models, scores and timings of a study cost when they ran: seconds, an estimate of the energy, and the bytes of the models."""

    seconds: float
    kilowatt_hours: float
    stored_bytes: int
    thread_watts: int = THREAD_WATTS
    gpu_watts: int = GPU_WATTS


def spent(study: StudyRecord) -> Spent:
    """The study's cost, without the nodes that its steps share, whose cost no variant records."""
    by_name = {variant.name: variant for variant in study.variants}
    costs = [cost for variant in study.variants for cost in variant.costs.values()]
    joules = sum(cost.seconds * (GPU_WATTS if cost.device != "cpu" else THREAD_WATTS * cost.threads) for cost in costs)
    stored = sum(variant.size.stored_bytes for variant in study.variants if variant.size and reached(variant, by_name))
    return Spent(sum(cost.seconds for cost in costs), joules / 3.6e6, stored)


def shared_tasks(study: StudyRecord) -> list[str]:
    """The tasks that the first scored variant (the base, unless it failed) answered: those over which means are taken."""
    return next(([score.task for score in variant.scores] for variant in study.variants if variant.scores), [])


def mean_bpb(variant: VariantRecord, tasks: Sequence[str]) -> float | None:
    """Mean bits-per-byte over those of `tasks` that have a gold continuation, or `None` if one is missing."""
    found = _scores(variant, tasks)
    values = [score.bits_per_byte for score in found if score.bits_per_byte is not None]
    return sum(values) / len(values) if values else None


def bpb_stderr(variant: VariantRecord, tasks: Sequence[str]) -> float:
    """Standard error of `mean_bpb`, the tasks' items being independent of one another; 0 where it is not known."""
    found = [score.bits_per_byte_stderr for score in _scores(variant, tasks) if score.bits_per_byte is not None]
    return math.sqrt(sum((error or 0) ** 2 for error in found)) / len(found) if found else 0.0


def mean_accuracy(variant: VariantRecord, tasks: Sequence[str]) -> float | None:
    """Mean accuracy over `tasks`, or `None` if one is missing."""
    found = _scores(variant, tasks)
    return sum(score.accuracy for score in found) / len(found) if found else None


def _scores(variant: VariantRecord, tasks: Sequence[str]) -> list[TaskScore]:
    by_task = {score.task: score for score in variant.scores}
    return [by_task[task] for task in tasks] if all(task in by_task for task in tasks) else []
