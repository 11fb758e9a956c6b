"""A family of models from a user's table of scores, for a reference on scores alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compresslab.catalog.published_settings import TASKS
from compresslab.density.references.family_scores import MIN_MODELS, FamilyScores
from compresslab.density.references.laws import D_UNIT, N_UNIT
from compresslab.errors import BadInput
from compresslab.plan.user_tables.table import read_table

MIN_SIZES = 4
"""Sizes that a family needs: its smallest and largest models stay when the others are left out in turn."""


def read_family_table(path: Path, name: str, source: str = "") -> FamilyScores:
    """The scores of a table (`plan.user_tables.table`) as those of one family, on every task that at least `MIN_MODELS` of its models have.

    Raises:
        BadInput: a mistake in the table, a model without `train_tokens`, too few sizes, or no task that enough models have.
    """
    table = read_table(path)
    models = sorted(table.scores, key=lambda model: table.sizes[model][0].counted)
    if without := [model for model in models if model not in table.tokens]:
        raise BadInput(f"{path}: {', '.join(without)} without train_tokens; a reference knows what its models were trained on")
    sizes = [table.sizes[model][0].counted for model in models]
    if len(set(sizes)) < MIN_SIZES:
        raise BadInput(f"{path} has models of {len(set(sizes))} sizes; a family needs at least {MIN_SIZES}, or no curve follows")
    scores = [{score.task: score.score for score in table.scores[model] if score.task} for model in models]
    tasks = tuple(task for task in TASKS if sum(task in own for own in scores) >= MIN_MODELS)
    if not tasks:
        unread = sorted({f"{score.benchmark} ({score.setting})" for own in table.scores.values() for score in own if not score.task})
        reason = f"; not read: {', '.join(unread)}" if unread else ""
        raise BadInput(f"{path} has no benchmark in one setting with scores of {MIN_MODELS} models{reason}")
    rows = np.array([[own.get(task, np.nan) for own in scores] for task in tasks])
    if flat := [task for task, row in zip(tasks, rows, strict=True) if len(np.unique(row[~np.isnan(row)])) < MIN_MODELS - 1]:
        raise BadInput(f"{path}: the scores of {', '.join(flat)} are nearly all the same, and no curve follows from that; leave them out")
    return FamilyScores(
        name=name,
        what=f"{len(models)} models of the table {path.name}: {', '.join(models)}",
        weights=tuple(table.sizes[model] for model in models),
        n=np.array(sizes) / N_UNIT,
        d=np.array([table.tokens[model] for model in models]) / D_UNIT,
        tasks=tasks,
        scores=rows,
        sources=(source or f"the table {path.name}",),
    )
