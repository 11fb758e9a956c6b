"""What a step adds to the loss of the right answers, in nats a token: the unit of published laws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compresslab.density import student
from compresslab.density.draws import groups_of
from compresslab.density.pairing import pairs
from compresslab.density.published_laws.predictions import AddedLoss
from compresslab.density.references.laws import Array
from compresslab.records import Interval, ItemScores
from compresslab.studies.answers.stored import Answers, Read, read_answers


def added_loss(
    parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, Path], read: Read = read_answers
) -> AddedLoss | None:
    """The loss of the child minus that of the parent over all tokens of the right answers that both were asked for.

    The 95% interval is that of a ratio of two sums over a sample of items, or of groups where a benchmark has many (`draws.groups_of`). It
    is Student's, with Satterthwaite's degrees of freedom over the tasks. `None` without two answers of which both losses are known.

    Args:
        parent, child: items by task. files: the child's items by task. A task whose file has no lengths of answers is left out.
        read: reads a file, or gives what was read of it before.
    """
    added = {task: _added(parent[task], after, read(files[task])) for task, after in child.items() if task in parent}
    added = {task: found for task, found in added.items() if len(found)}
    whole = np.concatenate(list(added.values())) if added else np.zeros((0, 3))
    length = float(whole[:, 1].sum())
    if len(whole) < 2 or length == 0:
        return None
    mean = float(whole[:, 0].sum()) / length
    variances, degrees = [], []
    for found in added.values():
        _, units = np.unique(found[:, 2], return_inverse=True)
        left = np.bincount(units, weights=found[:, 0] - mean * found[:, 1])
        degrees.append(max(len(left) - 1, 1))
        variances.append(float(left @ left) * len(left) / degrees[-1])
    total = sum(variances)
    joint = total**2 / sum(variance**2 / own for variance, own in zip(variances, degrees, strict=True)) if total > 0 else 1.0
    half = float(student.quantiles(np.array(0.975), joint)) * math.sqrt(total) / length
    left_out = tuple(task for task in child if task not in added)
    return AddedLoss(Interval(value=mean, low=mean - half, high=mean + half), left_out)


def _added(before: ItemScores, after: ItemScores, answers: Answers) -> Array:
    """(answers, 3): the loss added to each right answer, its tokens, and the number of the item or group that was sampled."""
    tokens = answers.tokens_of(after.gold)
    if before.logprob is None or after.logprob is None or tokens is None:
        return np.zeros((0, 3))
    groups = groups_of(after.item)
    units = np.arange(len(after.item)) if groups is None else groups
    found = [(before.logprob[row] - after.logprob[index], tokens[index], units[index]) for row, index in pairs(before, after)]
    return np.array(found, dtype=np.float64).reshape(-1, 3)
