"""The items on which a variant loses most against its parent, with the answers of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from compresslab.density.pairing import pairs
from compresslab.evaluation.scores import read_details
from compresslab.records import ItemDetail, ItemScores, LostItem

MAX_ITEMS = 4  # per variant
PROMPT_CHARACTERS = 600  # from the end of a prompt, which holds the question
ANSWER_CHARACTERS = 400  # of a generated answer
OPTION_CHARACTERS = 200  # of an option


def lost_items(parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, tuple[Path, Path]]) -> list[LostItem]:
    """Items first that the parent answers right and the child wrong, sorted by the lost likelihood of the right answer.

    Args:
        parent, child: items by task. files: paths of the parent's and the child's details, by task.

    Raises:
        RunFailed: a file holds no details.
    """
    ranked: list[tuple[bool, float, str, int, int]] = []
    for task in child:
        if task not in parent:
            continue
        for parent_index, index in pairs(parent[task], child[task]):
            flipped = parent[task].correct[parent_index] == 1 and child[task].correct[index] == 0
            bits = _bits(child[task], index) - _bits(parent[task], parent_index)
            if flipped or bits > 0:
                ranked.append((flipped, bits, task, parent_index, index))
    # An item without a gold continuation has no bits and comes last. Ties keep the order of the tasks.
    ranked.sort(key=lambda entry: (not entry[0], -entry[1] if math.isfinite(entry[1]) else math.inf))
    chosen = ranked[:MAX_ITEMS]
    details: dict[tuple[str, int], tuple[ItemDetail, ItemDetail]] = {}
    for task in {task for _, _, task, _, _ in chosen}:
        rows = [(parent_index, index) for _, _, other, parent_index, index in chosen if other == task]
        read = [read_details(path, column) for path, column in zip(files[task], zip(*rows, strict=True), strict=True)]
        details |= {(task, index): both for (_, index), both in zip(rows, zip(*read, strict=True), strict=True)}
    return [
        _side_by_side(task, child[task].item[index], child[task].gold[index], flipped, bits, parent[task].choice[parent_index],
                      child[task].choice[index], *details[task, index])
        for flipped, bits, task, parent_index, index in chosen
    ]  # fmt: skip


def _side_by_side(
    task: str,
    item: str,
    gold: int,
    flipped: bool,
    bits: float,
    parent_choice: int,
    child_choice: int,
    before: ItemDetail,
    after: ItemDetail,
) -> LostItem:
    return LostItem(
        task=task,
        item=item,
        prompt=after.prompt[-PROMPT_CHARACTERS:],
        cut=len(after.prompt) > PROMPT_CHARACTERS,
        options=[option[:OPTION_CHARACTERS] for option in after.options],
        gold=gold,
        parent_choice=parent_choice,
        child_choice=child_choice,
        parent_logprobs=before.logprobs,
        child_logprobs=after.logprobs,
        parent_text=None if before.generated is None else before.generated[:ANSWER_CHARACTERS],
        child_text=None if after.generated is None else after.generated[:ANSWER_CHARACTERS],
        bits=bits if math.isfinite(bits) else None,
        flipped=flipped,
    )


def _bits(items: ItemScores, index: int) -> float:
    return math.nan if items.bits_per_byte is None else items.bits_per_byte[index]
