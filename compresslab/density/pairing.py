"""Which items and tasks pair two variants. A task pairs them if both answered the same questions in the same order."""

from __future__ import annotations

from compresslab.density.draws import Measured
from compresslab.records import ItemScores


def same_question(one: ItemScores, index: int, other: ItemScores, other_index: int) -> bool:
    """Whether two items had the same prompts, continuations and right answer. An item without a noted hash is taken to have the prompts."""
    if one.gold[index] != other.gold[other_index]:
        return False
    first = one.prompt_hash[index] if one.prompt_hash else ""
    second = other.prompt_hash[other_index] if other.prompt_hash else ""
    return not first or not second or first == second


def pairs(one: ItemScores, other: ItemScores) -> list[tuple[int, int]]:
    """The rows of both that are the same question under the same name, in the order of the other."""
    rows = {item: row for row, item in enumerate(one.item)}
    return [
        (row, other_row)
        for other_row, item in enumerate(other.item)
        if (row := rows.get(item)) is not None and same_question(one, row, other, other_row)
    ]


def unpaired_tasks(child: Measured, parent: Measured) -> dict[str, str]:
    """Tasks that both answered and that do not pair them, each with the reason in words."""
    reasons = {task: _why_unpaired(child, parent, task) for task in child.items if task in parent.items}
    return {task: reason for task, reason in reasons.items() if reason}


def _why_unpaired(child: Measured, parent: Measured, task: str) -> str:
    own, theirs = child.items[task], parent.items[task]
    names, advice = f"{child.name} and {parent.name}", "evaluate both in a new store"
    if own.item != theirs.item:
        pairs = enumerate(zip(own.item, theirs.item, strict=False))
        first = next((index for index, (a, b) in pairs if a != b), min(len(own.item), len(theirs.item)))
        counts = f"{len(own.item)} and {len(theirs.item)}; they differ from number {first + 1} on"
        return f"{task} is left out: {names} did not answer the same items ({counts}); {advice}"
    if own.gold != theirs.gold:
        return f"{task} is left out: {names} have different right answers; {advice}"
    other = next((item for index, item in enumerate(own.item) if not same_question(own, index, theirs, index)), None)
    if other is None:
        return ""
    what = f"were asked different questions under the same names, first in item {other}"
    return f"{task} is left out: {names} {what}, because the task's data changed between the two evaluations; {advice}"
