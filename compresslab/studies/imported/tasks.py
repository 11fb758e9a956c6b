"""What lm-eval's tasks are called in references: by their own names where they were asked 0-shot, or as published benchmarks in a setting.

A study asks lm-eval's tasks 0-shot unless the task itself says otherwise, so a curve of `lm-eval:piqa` reads 0-shot answers alone. The
families of published scores have benchmarks in other settings, and some of lm-eval's tasks are in one of them (`PUBLISHED`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compresslab.catalog.olmes import is_olmes
from compresslab.catalog.references import reference_names
from compresslab.catalog.stock_tasks import PREFIX
from compresslab.density.references.reference import Reference
from compresslab.errors import BadInput
from compresslab.evaluation.scores import PREFERRED
from compresslab.studies.imported.files import TaskResult

PUBLISHED: Mapping[tuple[str, int, str], str] = {
    ("mmlu", 5, "acc"): "MMLU",
    ("gsm8k", 5, "exact_match"): "GSM8K 5-shot",
    ("gsm8k_cot", 8, "exact_match"): "GSM8K 8-shot",
    ("arc_challenge", 25, "acc_norm"): "ARC-C 25-shot",
    ("arc_challenge", 0, "acc_norm"): "ARC-C 0-shot",
    ("hellaswag", 10, "acc_norm"): "HellaSwag 10-shot",
    ("hellaswag", 0, "acc_norm"): "HellaSwag 0-shot",
    ("winogrande", 5, "acc"): "WinoGrande 5-shot",
    ("winogrande", 0, "acc"): "WinoGrande 0-shot",
    ("leaderboard_mmlu_pro", 5, "acc"): "MMLU-Pro letters",
    ("leaderboard_bbh", 3, "acc_norm"): "BBH likelihood",
    ("leaderboard_math_hard", 4, "exact_match"): "MATH level 5",
}
"""Task, shots and metric of lm-eval -> the task of `catalog.published_settings` that is the same benchmark in the same setting."""


def metric_of(task: TaskResult) -> str:
    """lm-eval's name of the metric and filter that is a task's accuracy, chosen as in a study (`evaluation.scores.PREFERRED`).

    Raises:
        BadInput: the task has none of these metrics.
    """
    for name in PREFERRED:
        if found := next((key for key in task.scores if key.partition(",")[0] == name), None):
            return found
    raise BadInput(
        f"{task.name}: its metrics ({', '.join(task.scores)}) are none that counts right answers ({', '.join(PREFERRED)}); leave it out "
        "with --task, or name its samples, whose own metric is then read"
    )


def names_of(task: TaskResult) -> Iterator[str]:
    """What a reference may call a task, the name that a study would give it first."""
    if task.shots == 0:
        # OLMES has other tasks of the same names, and the references that ship mark lm-eval's by the prefix.
        yield from (f"{PREFIX}{task.name}",) if is_olmes(task.name) else (task.name, f"{PREFIX}{task.name}")
    for name in PREFERRED:
        if any(key.partition(",")[0] == name for key in task.scores):
            if task.shots is not None and (published := PUBLISHED.get((task.name, task.shots, name))):
                yield published
            return


def name_in(reference: Reference, task: TaskResult) -> str:
    """A task's name in a reference; where the reference lacks it, lm-eval's name with its shots."""
    known = next((name for name in names_of(task) if name in reference.tasks), "")
    if known:
        return known
    if task.shots == 0:
        return next(names_of(task))
    return f"{task.name} ({'unequal shots' if task.shots is None else f'{task.shots}-shot'})"


def best_reference(tasks: list[TaskResult]) -> Reference:
    """The reference that ships and reads most of the tasks."""
    return max(map(Reference.load, reference_names()), key=lambda one: sum(name_in(one, task) in one.tasks for task in tasks))
