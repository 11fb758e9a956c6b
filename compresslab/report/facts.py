"""Values that page and tables take from a record: comparisons, means over tasks, costs.

Does not import pandas, because its import takes longer than drawing the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compresslab.density.mcnemar import two_sided
from compresslab.records import (
    Comparison,
    Counted,
    DivergenceFloor,
    Fidelity,
    Interval,
    NoiseFloor,
    StepRecord,
    StudyRecord,
    TaskScore,
    TextDivergence,
    VariantRecord,
)
from compresslab.report import words

MOST_LOST = 0.1
"""A divergence of stored logits that lacks more than this share of the full one is warned of."""


class Changes(NamedTuple):
    """How a variant's answers changed from its parent's, over all its tasks.

    Attributes:
        items: over all tasks. changed: share of those whose answer itself is stored; `None` if none is.
        decided: items that are right or wrong. lost, gained: those of them that changed from right to wrong and from wrong to right.
        p: two-sided, of McNemar's exact test of the two.
        tasks: the same task by task.
    """

    variant: VariantRecord
    items: int
    changed: float | None
    decided: int
    lost: int
    gained: int
    p: float
    tasks: list[Fidelity]


def changes(study: StudyRecord) -> list[Changes]:
    """The changed answers of every variant that was compared with its parent, over items of all tasks together."""
    found = []
    for variant in study.variants:
        if tasks := variant.fidelity:
            stored = [(task.changed * task.items, task.items) for task in tasks if task.changed is not None]
            decided = [(task.items, task.lost, task.gained) for task in tasks if task.lost is not None and task.gained is not None]
            items, lost, gained = (sum(column) for column in zip(*decided, strict=True)) if decided else (0, 0, 0)
            changed = sum(number for number, _ in stored) / sum(number for _, number in stored) if stored else None
            total = sum(task.items for task in tasks)
            found.append(Changes(variant, total, changed, items, lost, gained, two_sided(lost, gained), tasks))
    return found


def told_by_top_k(divergence: TextDivergence) -> list[tuple[int, float, float | None]]:
    """For each number of stored logits: what they and the mass of all others tell of KL, and its share; no share if KL is 0."""
    whole = divergence.kl.value
    return [(k, told, told / whole if whole else None) for k, told in sorted(divergence.top_k.items())]


def noise_floors(study: StudyRecord) -> list[tuple[VariantRecord, NoiseFloor | DivergenceFloor]]:
    """Every noise floor of the study with its variant."""
    found: list[tuple[VariantRecord, NoiseFloor | DivergenceFloor]] = []
    for variant in study.variants:
        if variant.noise is not None:
            found += [(variant, floor) for floor in variant.noise.differences]
            found += [(variant, floor) for floor in variant.noise.divergences]
    return found


def noise_sentences(study: StudyRecord) -> list[str]:
    """For each variant with replicates and each model it is held against, what exceeds the noise floor in the mean over tasks."""
    found: dict[tuple[str, str], list[str]] = {}
    for variant, floor in noise_floors(study):
        if not floor.task:
            found.setdefault((variant.name, floor.against), []).append(words.noise(floor))
    return [f"{name} against {against}: {'; '.join(sentences)}" for (name, against), sentences in found.items()]


def within_noise(variant: VariantRecord) -> set[str]:
    """The quantities in which a variant differs from its parent, in the mean over tasks, by no more than its noise floor."""
    floors = variant.noise.differences if variant.noise else []
    return {floor.quantity for floor in floors if floor.against == variant.parent and not floor.task and floor.larger is False}


def comparison_with(variant: VariantRecord, relation: str) -> Comparison | None:
    """The comparison of a variant with its "parent" or "root". For a child of the root both are the same comparison."""
    for comparison in variant.comparisons:
        if comparison.relation == relation:
            return comparison
    if variant.parent == variant.root:
        return next(iter(variant.comparisons), None)
    return None


def benchmarks(comparison: Comparison) -> tuple[str, ...]:
    """The tasks that a comparison's verdict rests on, in alphabetical order."""
    return tuple(sorted(comparison.rests_on or [task.task for task in comparison.tasks]))


def existing_ratios(comparison: Comparison) -> list[tuple[str, str, Interval, str]]:
    """Every ratio of a comparison that exists, as (basis, hardware, ratio, verdict)."""
    single = [
        ("params", "", comparison.ratio, comparison.verdict),
        ("params by score", "", comparison.ratio_by_score, comparison.verdict_by_score),
        ("active", "", comparison.ratio_active if comparison.count == "active" else None, comparison.verdict_active),
        ("bits", "", comparison.ratio_bits, comparison.verdict_bits),
    ]
    timed = [("time", key, value, comparison.verdict_time.get(key, "inconclusive")) for key, value in comparison.ratio_time.items()]
    return [(basis, hardware, interval, verdict) for basis, hardware, interval, verdict in [*single, *timed] if interval is not None]


def held(study: StudyRecord) -> list[tuple[VariantRecord, StepRecord, Counted]]:
    """The last step of every variant that was built, with what was counted from its files."""
    by_name = {variant.name: variant for variant in study.variants}
    built = [(variant, variant.steps[-1]) for variant in study.variants if was_built(variant, by_name)]
    return [(variant, step, step.counted) for variant, step in built if step.counted is not None]


def was_built(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> bool:
    """Whether the variant's last step succeeded. A failed variant has its ancestors' steps and must not show their size as its own."""
    parent = by_name.get(variant.parent)
    if parent is None:
        return bool(variant.steps) and not (variant.parent and variant.failures)
    return len(variant.steps) > len(parent.steps)


def is_pending(variant: VariantRecord) -> bool:
    """Whether parts of a variant are missing only because they have not run yet."""
    return bool(variant.failures) and all(failure.pending for failure in variant.failures)


def hardware(study: StudyRecord) -> list[str]:
    """The hardware profiles for which times were modelled, this machine first."""
    names = {name: None for variant in study.variants if variant.density for name in variant.density.modelled_seconds}
    return sorted(names, key=lambda name: name != "this-machine")


def engines(study: StudyRecord) -> dict[str, str]:
    """By hardware profile the engine for which the compressed variants' times hold, in words; several if they differ."""
    found: dict[str, dict[str, None]] = {}
    for variant in study.variants:
        if variant.parent and variant.density:
            for name, engine in variant.density.engines.items():
                found.setdefault(name, {})[engine] = None
    return {name: " or ".join(engines) for name, engines in found.items()}


def rulers(study: StudyRecord) -> dict[str, list[str]]:
    """Every reference with its D0 that densities were read by, each with the bases whose variants it read. A page of several studies may
    have several."""
    found: dict[str, dict[str, None]] = {}
    for variant in study.variants:
        if variant.density:
            found.setdefault(words.ruler(variant.density), {})[variant.root] = None
    return {ruler: list(bases) for ruler, bases in found.items()}


def time_on(name: str, engines: dict[str, str]) -> str:
    """A count of N by time in words, with its engine if the record has it."""
    return f"by time with {engines[name]} on {name}" if name in engines else f"by modelled time on {name}"


def modelled_ratios(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> dict[str, float]:
    """Modelled time of one request over the parent's, by hardware profile."""
    parent = by_name.get(variant.parent)
    if variant.density is None or parent is None or parent.density is None:
        return {}
    before = parent.density.modelled_seconds
    return {name: seconds / before[name] for name, seconds in variant.density.modelled_seconds.items() if before.get(name)}


def measured_slower(variant: VariantRecord, by_name: dict[str, VariantRecord]) -> bool:
    """Whether the variant was measured slower than its parent although modelled time is faster (both by more than 5%)."""
    measured = variant.timing.ratio if variant.timing else None
    modelled = modelled_ratios(variant, by_name)
    return measured is not None and measured > 1.05 and any(ratio < 0.95 for ratio in modelled.values())


THREAD_WATTS, GPU_WATTS = 10, 500
"""Assumed power of a busy thread and a busy GPU in watts: round figures of current servers. The page names them."""


class StudyCost(NamedTuple):
    """Cost of a study's models, scores and timings when they ran: seconds, estimated energy, and the bytes of the models."""

    seconds: float
    kilowatt_hours: float
    stored_bytes: int
    thread_watts: int = THREAD_WATTS
    gpu_watts: int = GPU_WATTS


def study_cost(study: StudyRecord) -> StudyCost:
    """The study's cost, without the nodes that its steps share, because their cost is in no variant's record."""
    by_name = {variant.name: variant for variant in study.variants}
    costs = [cost for variant in study.variants for cost in variant.costs.values()]
    joules = sum(cost.seconds * (GPU_WATTS if cost.device != "cpu" else THREAD_WATTS * cost.threads) for cost in costs)
    stored = sum(variant.size.stored_bytes for variant in study.variants if variant.size and was_built(variant, by_name))
    return StudyCost(sum(cost.seconds for cost in costs), joules / 3.6e6, stored)


def shared_tasks(study: StudyRecord) -> list[str]:
    """The tasks over which means are taken: those of the first scored variant (the base, unless it failed) that pair all variants."""
    first = next((variant for variant in study.variants if variant.scores), None)
    if first is None:
        return []
    assessed = {entry.task for entry in first.density.tasks} if first.density else {score.task for score in first.scores}
    return [score.task for score in first.scores if score.task in assessed]


def mean_bpb(variant: VariantRecord, tasks: Sequence[str]) -> float | None:
    """Mean bits-per-byte over those of `tasks` that have a gold continuation, or `None` if one is missing."""
    scores = _scores(variant, tasks)
    values = [score.bits_per_byte for score in scores if score.bits_per_byte is not None]
    return sum(values) / len(values) if values else None


def bpb_stderr(variant: VariantRecord, tasks: Sequence[str]) -> float:
    """Standard error of `mean_bpb` for independent items; 0 if unknown."""
    errors = [score.bits_per_byte_stderr for score in _scores(variant, tasks) if score.bits_per_byte is not None]
    return math.sqrt(sum((error or 0) ** 2 for error in errors)) / len(errors) if errors else 0.0


def mean_accuracy(variant: VariantRecord, tasks: Sequence[str]) -> float | None:
    """Mean accuracy over `tasks`, or `None` if one is missing."""
    scores = _scores(variant, tasks)
    return sum(score.accuracy for score in scores) / len(scores) if scores else None


def accuracy_stderr(variant: VariantRecord, tasks: Sequence[str]) -> float:
    """Standard error of `mean_accuracy` for independent items."""
    scores = _scores(variant, tasks)
    return math.sqrt(sum(score.accuracy_stderr**2 for score in scores)) / len(scores) if scores else 0.0


def _scores(variant: VariantRecord, tasks: Sequence[str]) -> list[TaskScore]:
    by_task = {score.task: score for score in variant.scores}
    return [by_task[task] for task in tasks] if all(task in by_task for task in tasks) else []
