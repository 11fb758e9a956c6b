"""The families whose published scores references are fitted to, and those scores by task."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compresslab.catalog.published_scores import scores_of, tables, weights
from compresslab.catalog.published_settings import TASKS
from compresslab.density.references.laws import D_UNIT, N_UNIT, Array

MIN_MODELS = 4
"""A task with scores of fewer models is left out: a link has two coefficients."""


@dataclass(frozen=True)
class Family:
    """The models of a family with their training tokens, and the evaluations with their scores, the preferred ones first.

    An evaluation is one or several tables of one document.
    """

    name: str
    what: str
    models: tuple[tuple[str, float], ...]
    evaluations: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FamilyScores:
    """Counted parameters (1e9) and tokens (1e11) of a family's models, and their scores (tasks, models), NaN where one is missing."""

    n: Array
    d: Array
    tasks: tuple[str, ...]
    scores: Array
    sources: tuple[str, ...]

    def keep(self, models: Sequence[int]) -> FamilyScores:
        """The scores of some of the models."""
        rows = list(models)
        return replace(self, n=self.n[rows], d=self.d[rows], scores=self.scores[:, rows])

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


QWEN = Family(
    "qwen2.5",
    "Qwen2.5 base models, 0.5B to 72B, each at up to 18T tokens",
    tuple((f"Qwen2.5-{size}B", 18e12) for size in ("0.5", "1.5", "3", "7", "14", "32", "72")),
    (tuple(f"Qwen2.5-blog-base-{number}" for number in (1, 2, 3, 4)), ("Qwen3-report-base",)),
)
LLAMA = Family(
    "llama-1-2",
    "Llama 1 (7B to 65B, 1.0T and 1.4T tokens) and Llama 2 (7B to 70B, 2.0T tokens)",
    (
        *((f"Llama-1-{size}B", 1.0e12) for size in (7, 13)),
        *((f"Llama-1-{size}B", 1.4e12) for size in (33, 65)),
        *((f"Llama-2-{size}B", 2.0e12) for size in (7, 13, 34, 70)),
    ),
    (("Llama2-paper",), ("ObsScaling-base",), ("ObsScaling-v2",), ("Qwen1.5-blog-0",)),
)
FAMILIES = {family.name: family for family in (QWEN, LLAMA)}


def read_family(family: Family) -> FamilyScores:
    """The scores of a family."""
    n = np.array([weights(model)[0].counted / N_UNIT for model, _ in family.models])
    d = np.array([tokens / D_UNIT for _, tokens in family.models])
    rows: dict[str, list[float]] = {}
    used: dict[str, None] = {}
    for evaluation in family.evaluations:
        found = [{task: (score.score, table) for table in evaluation for task, score in scores_of(model, table).items()}
                 for model, _ in family.models]  # fmt: skip
        for task in TASKS:
            if task not in rows and sum(task in scores for scores in found) >= MIN_MODELS:
                rows[task] = [scores[task][0] if task in scores else np.nan for scores in found]
                used |= dict.fromkeys(scores[task][1] for scores in found if task in scores)
    tasks = tuple(task for task in TASKS if task in rows)
    sources = dict.fromkeys(tables()[table][1] for table in used)
    return FamilyScores(n, d, tasks, np.array([rows[task] for task in tasks]), tuple(sources))
