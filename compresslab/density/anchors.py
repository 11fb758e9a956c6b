"""Scores of one table read as scores of another, by the models that both tables have.

Two evaluations of one model differ by prompts, harness and rounding, often by more than a compression does. Models that stand in both
show by how much: on each task the shift is the mean difference of their scores, in logits of the share above a guess, and its error is
that of one more model (a new model's shift differs from the mean, too). The standard deviation is common to the tasks, because a task
alone has few such models. Where one table copied a score from the other, the difference is 0 and says nothing; tables do not always say
that they copied, so the error is a lower limit.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from compresslab.catalog import published_scores as tables
from compresslab.catalog.published_settings import TASKS
from compresslab.density.draws import Anchor
from compresslab.density.references.laws import share_logit

MIN_DEGREES = 2
"""With fewer degrees of freedom the shift's error is not known well enough to give any verdict."""


def anchors(table: str, onto: str) -> tuple[dict[str, Anchor], int]:
    """By task, how scores of the evaluation of `table` become scores of that of `onto`, and the number of models that both have.

    No task has an anchor if the models are too few to tell the error.
    """
    own, other = _evaluation(table), _evaluation(onto)
    differences: dict[str, list[float]] = defaultdict(list)
    shared = set()
    for (model, task), score in own.items():
        chance = TASKS[task].chance
        there = other.get((model, task))
        if there is not None and min(score, there) > chance and max(score, there) < 1:
            logits = share_logit(np.array([score, there]), chance)
            differences[task].append(float(logits[1] - logits[0]))
            shared.add(model)
    degrees = sum(len(values) - 1 for values in differences.values())
    if degrees < MIN_DEGREES:
        return {}, len(shared)
    squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in differences.values())
    deviation = math.sqrt(squares / degrees)
    found = {
        task: Anchor(
            shift=float(np.mean(values)), error=deviation * math.sqrt(1 + 1 / len(values)), degrees=degrees, tables=f"{table}/{onto}"
        )
        for task, values in differences.items()
    }
    return found, len(shared)


def _evaluation(table: str) -> dict[tuple[str, str], float]:
    """The scores by model and task of all tables of one document."""
    parts = {name for name in tables.tables() if tables.one_evaluation(name, table)}
    return {(score.model, score.task): score.score for score in tables.all_scores() if score.table in parts and score.task}
