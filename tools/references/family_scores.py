"""The families whose published scores references are fitted to, and those scores by task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compresslab.catalog.published_scores import scores_of, tables, weights
from compresslab.catalog.published_settings import TASKS
from compresslab.density.references.family_scores import MIN_MODELS, FamilyScores
from compresslab.density.references.laws import D_UNIT, N_UNIT


@dataclass(frozen=True)
class Family:
    """The models of a family with their training tokens, and the evaluations with their scores, the preferred ones first.

    An evaluation is one or several tables of one document.
    """

    name: str
    what: str
    models: tuple[tuple[str, float], ...]
    evaluations: tuple[tuple[str, ...], ...]


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
    models = tuple(weights(model) for model, _ in family.models)
    n = np.array([size.counted / N_UNIT for size, _ in models])
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
    return FamilyScores(family.name, family.what, models, n, d, tasks, np.array([rows[task] for task in tasks]), tuple(sources))
