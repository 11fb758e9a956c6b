"""The items and tasks that a study's answer rests on."""

from __future__ import annotations

from compresslab.records import StudyRecord
from compresslab.report.facts import shared_tasks

MOST_NAMED = 6
"""More tasks than this are counted and not named."""


def basis(study: StudyRecord) -> str:
    """What the answer rests on, in a sentence; empty for a study without scores."""
    tasks = shared_tasks(study)
    first = next((variant for variant in study.variants if variant.scores), None)
    if first is None or not tasks:
        return ""
    items = {score.task: score.items for score in first.scores if score.task in tasks}
    number = f"{len(tasks)} tasks" if len(tasks) > 1 else "1 task"
    named = ", ".join(f"{task} {count:,}" for task, count in items.items()) if len(tasks) <= MOST_NAMED else ""
    total = f"{sum(items.values()):,} item{'s' if sum(items.values()) != 1 else ''}"
    return f"Rests on {total} of {number}{f' ({named})' if named and len(tasks) > 1 else f' ({tasks[0]})' if named else ''}."
