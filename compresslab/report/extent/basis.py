"""The items and tasks that a study's answer rests on."""

from __future__ import annotations

from collections.abc import Sequence

from compresslab.records import StudyRecord, VariantRecord
from compresslab.report.facts import comparison_with, shared_tasks

MOST_NAMED = 6
"""More tasks than this are counted and not named."""


def basis(study: StudyRecord) -> str:
    """What the answer rests on, in a sentence; empty for a study without scores.

    A variant rests on the items that are paired with its parent's. Where variants rest on different numbers, both ends are told.
    """
    tasks, scored = shared_tasks(study), [variant for variant in study.variants if variant.scores]
    if not scored or not tasks:
        return ""
    number = f"{len(tasks)} tasks" if len(tasks) > 1 else "1 task"
    if any(score.engine == "published" for variant in scored for score in variant.scores):
        named = f" ({', '.join(tasks)})" if len(tasks) <= MOST_NAMED else ""
        return f"Rests on published scores of {number}{named}; no item of them is known here."
    counts = [_items(variant, tasks) for variant in scored]
    by_task = {task: [count.get(task, 0) for count in counts] for task in tasks}
    totals = [sum(count.values()) for count in counts]
    total = f"{_span(totals)} item{'s' if max(totals) != 1 else ''}"
    named = ", ".join(f"{task} {_span(found)}" for task, found in by_task.items()) if len(tasks) <= MOST_NAMED else ""
    named = f" ({named})" if named and len(tasks) > 1 else f" ({tasks[0]})" if named else ""
    unequal = any(len(set(found)) > 1 for found in by_task.values())
    return f"Rests on {total} of {number}{named}{'; not every variant has as many' if unequal else ''}."


def _items(variant: VariantRecord, tasks: Sequence[str]) -> dict[str, int]:
    """By task, the items that a variant shares with its parent, or was scored on if they were not compared."""
    comparison = comparison_with(variant, "parent") if variant.parent else None
    paired = {task.task: task.items for task in comparison.tasks} if comparison else {}
    return {score.task: paired.get(score.task, score.items) for score in variant.scores if score.task in tasks}


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
