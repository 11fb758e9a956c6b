"""What a step adds to the loss of the right answers, in nats a token: the unit of published laws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compresslab.density import student
from compresslab.density.draws import groups_of
from compresslab.density.pairing import same_question
from compresslab.density.published_laws.predictions import AddedLoss
from compresslab.density.references.laws import Array
from compresslab.records import Interval, ItemScores


def added_loss(parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, Path]) -> AddedLoss | None:
    """The loss of the child minus that of the parent over all tokens of the right answers that both were asked for.

    The 95% interval is that of a ratio of two sums over a sample of items, or of groups where a benchmark has many (`draws.groups_of`). It
    is Student's, with Satterthwaite's degrees of freedom over the tasks. `None` without two answers of which both losses are known.

    Args:
        parent, child: items by task. files: the child's items by task. A task whose file has no lengths of answers is left out.
    """
    pairs = {task: _pairs(parent[task], after, files[task]) for task, after in child.items() if task in parent}
    pairs = {task: found for task, found in pairs.items() if len(found)}
    whole = np.concatenate(list(pairs.values())) if pairs else np.zeros((0, 3))
    length = float(whole[:, 1].sum())
    if len(whole) < 2 or length == 0:
        return None
    mean = float(whole[:, 0].sum()) / length
    variances, degrees = [], []
    for found in pairs.values():
        _, units = np.unique(found[:, 2], return_inverse=True)
        left = np.bincount(units, weights=found[:, 0] - mean * found[:, 1])
        degrees.append(max(len(left) - 1, 1))
        variances.append(float(left @ left) * len(left) / degrees[-1])
    total = sum(variances)
    joint = total**2 / sum(variance**2 / own for variance, own in zip(variances, degrees, strict=True)) if total > 0 else 1.0
    half = float(student.quantiles(np.array(0.975), joint)) * math.sqrt(total) / length
    left_out = tuple(task for task in child if task not in pairs)
    return AddedLoss(Interval(value=mean, low=mean - half, high=mean + half), left_out)


def _pairs(before: ItemScores, after: ItemScores, path: Path) -> Array:
    """(answers, 3): the loss added to each right answer, its tokens, and the number of the item or group that was sampled."""
    if before.logprob is None or after.logprob is None:
        return np.zeros((0, 3))
    groups = groups_of(after.item)
    units = np.arange(len(after.item)) if groups is None else groups
    places = {item: index for index, item in enumerate(before.item)}
    found = []
    for index, (item, tokens) in enumerate(zip(after.item, _gold_tokens(path), strict=False)):
        place = places.get(item)
        if place is not None and same_question(before, place, after, index):
            found.append((before.logprob[place] - after.logprob[index], tokens, units[index]))
    return np.array(found, dtype=np.float64).reshape(-1, 3)


def _gold_tokens(path: Path) -> list[int]:
    """Tokens of each item's right answer, in the order of the file; empty where an item has none, nobody counted them, or no file tells."""
    from pyarrow.parquet import read_table

    try:
        rows = [(row["gold"], row["tokens"] or []) for row in read_table(path, columns=["gold", "tokens"]).to_pylist()]
    except (OSError, KeyError, ValueError):
        return []
    known = all(0 <= gold < len(tokens) for gold, tokens in rows)
    return [int(tokens[gold]) for gold, tokens in rows] if known else []
