"""The scores of a family of models, to which a reference is fitted that has no losses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compresslab.catalog.published_settings import TASKS
from compresslab.density.references.laws import Array
from compresslab.records import Shape, Size

MIN_MODELS = 4
"""A task with scores of fewer models is left out: a link has two coefficients."""


@dataclass(frozen=True)
class FamilyScores:
    """The scores of a family's models, in one order.

    Attributes:
        name, what: of the family, `what` in words. weights: size and shape of each model.
        n, d: (models,) counted parameters (1e9) and training tokens (1e11). scores: (tasks, models), NaN where one is missing.
        sources: of the scores.
    """

    name: str
    what: str
    weights: tuple[tuple[Size, Shape], ...]
    n: Array
    d: Array
    tasks: tuple[str, ...]
    scores: Array
    sources: tuple[str, ...]

    def keep(self, models: Sequence[int]) -> FamilyScores:
        """The scores of some of the models."""
        rows = list(models)
        return replace(self, weights=tuple(self.weights[row] for row in rows), n=self.n[rows], d=self.d[rows], scores=self.scores[:, rows])

    def without(self, model: int) -> FamilyScores:
        """The scores without one model."""
        return self.keep([other for other in range(len(self.n)) if other != model])

    def only(self, tasks: Collection[str]) -> FamilyScores:
        """The scores of some of the tasks."""
        rows = [row for row, task in enumerate(self.tasks) if task in tasks]
        return replace(self, tasks=tuple(self.tasks[row] for row in rows), scores=self.scores[rows])

    @property
    def chances(self) -> Array:
        """(tasks, 1) scores of a guess."""
        return np.array([[TASKS[task].chance] for task in self.tasks])

    @property
    def errors(self) -> Array:
        """Standard error of each score: binomial over the task's items."""
        items = np.array([[TASKS[task].items] for task in self.tasks], dtype=np.float64)
        return np.sqrt(self.scores * (1 - self.scores) / items)
