"""The items that a variant answers worst against its parent, side by side, so that a person sees what was lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from compresslab.evaluation.scores import read_details
from compresslab.records import ItemDetail, ItemScores, LostItem

MOST = 4  # a variant
PROMPT = 600  # characters from the end of a prompt, where the question stands
ANSWER = 400  # characters of a generated answer
OPTION = 200  # characters of an option


def lost_items(parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, tuple[Path, Path]]) -> list[LostItem]:
    """Those that the parent had right and the child has not first, and of these those whose right answer lost most likelihood.

    Args:
        parent, child: items by task. files: by task, where the parent's and the child's details lie.

    Raises:
        RunFailed: a file holds no details.
    """
    ranked: list[tuple[bool, float, str, int, int]] = []
    for task in child:
        if task not in parent:
            continue
        before = {item: place for place, item in enumerate(parent[task].item)}
        for place, item in enumerate(child[task].item):
            if (there := before.get(item)) is None:
                continue
            flipped = parent[task].correct[there] == 1 and child[task].correct[place] == 0
            bits = _bits(child[task], place) - _bits(parent[task], there)
            if flipped or bits > 0:
                ranked.append((flipped, bits, task, there, place))
    # An item without a gold continuation has no bits to lose, and comes after those that have; ties in the order of the tasks.
    ranked.sort(key=lambda one: (not one[0], -one[1] if math.isfinite(one[1]) else math.inf))
    return [
        _side_by_side(task, child[task].item[place], child[task].gold[place], flipped, bits, parent[task].choice[there],
                      child[task].choice[place], read_details(files[task][0], [there])[0], read_details(files[task][1], [place])[0])
        for flipped, bits, task, there, place in ranked[:MOST]
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
        prompt=after.prompt[-PROMPT:],
        cut=len(after.prompt) > PROMPT,
        options=[option[:OPTION] for option in after.options],
        gold=gold,
        parent_choice=parent_choice,
        child_choice=child_choice,
        parent_logprobs=before.logprobs,
        child_logprobs=after.logprobs,
        parent_text=None if before.generated is None else before.generated[:ANSWER],
        child_text=None if after.generated is None else after.generated[:ANSWER],
        bits=bits if math.isfinite(bits) else None,
        flipped=flipped,
    )


def _bits(items: ItemScores, place: int) -> float:
    return math.nan if items.bits_per_byte is None else items.bits_per_byte[place]
