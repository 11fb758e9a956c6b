"""What a step adds to the loss of the right answers, in nats a token: the unit of published laws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from compresslab.density.pairing import same_question
from compresslab.errors import RunFailed
from compresslab.records import Interval, ItemScores

NORMAL = 1.96
"""Half the width of a 95% interval, in standard errors."""


def added_loss(parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, Path]) -> Interval | None:
    """The loss of the child minus that of the parent over all tokens of the right answers that both were asked for.

    The interval holds the items as a sample, as that of a ratio of two sums. `None` without an answer of which both losses are known.

    Args:
        parent, child: items by task. files: the child's items by task.

    Raises:
        RunFailed: a file does not hold the lengths of the answers.
    """
    pairs: list[tuple[float, int]] = []
    for task, after in child.items():
        before = parent.get(task)
        if before is None or before.logprob is None or after.logprob is None:
            continue
        places = {item: index for index, item in enumerate(before.item)}
        for index, (item, tokens) in enumerate(zip(after.item, _gold_tokens(files[task]), strict=False)):
            place = places.get(item)
            if place is not None and same_question(before, place, after, index):
                pairs.append((before.logprob[place] - after.logprob[index], tokens))
    length, count = sum(tokens for _, tokens in pairs), len(pairs)
    if count < 2 or length == 0:
        return None
    mean = sum(added for added, _ in pairs) / length
    error = math.sqrt(sum((added - mean * tokens) ** 2 for added, tokens in pairs) * count / (count - 1)) / length
    return Interval(value=mean, low=mean - NORMAL * error, high=mean + NORMAL * error)


def _gold_tokens(path: Path) -> list[int]:
    """Tokens of each item's right answer, in the order of the file; empty where an item has none or nobody counted them."""
    from pyarrow.parquet import read_table

    try:
        rows = [(row["gold"], row["tokens"] or []) for row in read_table(path, columns=["gold", "tokens"]).to_pylist()]
    except (OSError, KeyError, ValueError) as problem:
        raise RunFailed(f"{path} does not hold the lengths of the answers: {problem}; delete it and evaluate again") from problem
    known = all(0 <= gold < len(tokens) for gold, tokens in rows)
    return [int(tokens[gold]) for gold, tokens in rows] if known else []
