"""The scores of imported models: per item where all samples are at hand, else values with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.records import ItemScores, TaskScore
from compresslab.studies.imported.files import ModelResults, TaskResult
from compresslab.studies.imported.lineage import Lineage
from compresslab.studies.imported.pairing import check_paired
from compresslab.studies.imported.samples import WEIGHTS, read_task
from compresslab.studies.imported.tasks import metric_of


class Answers(NamedTuple):
    """What the models answered, by the study's names of the variants and tasks: per item, or values with their numbers of items."""

    scores: dict[str, list[TaskScore]]
    items: dict[str, dict[str, ItemScores]]
    values: dict[str, dict[str, float]]
    counts: dict[str, dict[str, int]]


def shared_tasks(models: Sequence[ModelResults], only: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tasks that all models have, and those that some lack."""
    every = list(dict.fromkeys(task for model in models for task in model.tasks))
    if unknown := [task for task in only if task not in every]:
        raise BadInput(f"--task {unknown[0]}: no file has it; there are {', '.join(every)}")
    wanted = [task for task in every if not only or task in only]
    shared = [task for task in wanted if all(task in model.tasks for model in models)]
    if not shared:
        own = "; ".join(f"{model.name} has {', '.join(model.tasks)}" for model in models)
        raise BadInput(f"no task is left that every model answered: {own}; evaluate them on the same tasks, or name other files")
    return shared, [task for task in wanted if task not in shared]


def sampled_tasks(models: Sequence[ModelResults], tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tasks of which every model's samples were given, and the others if there are any of these."""
    found = [task for task in tasks if all(leaf in model.samples for model in models for leaf in model.tasks[task].leaves)]
    partly = [model.name for model in models if model.samples]
    if not found and partly:
        lacking = [model.name for model in models if not model.samples] or [model.name for model in models]
        raise BadInput(
            f"samples of {', '.join(partly)} were given, and no task has those of every model (see {', '.join(lacking)}); name the "
            "samples_*.jsonl of all models, or of none"
        )
    return found, [task for task in tasks if task not in found] if found else []


def by_items(models: Sequence[ModelResults], tasks: Sequence[str], names: Mapping[str, str], lineage: Lineage) -> Answers:
    """The items of every model, paired with its parent's.

    Args:
        names: the study's name of each task.

    Raises:
        BadInput: samples that are not lm-eval's, or that do not pair.
    """
    answers = Answers({}, {}, {}, {})
    by_document = any(model.template for model in models)
    for model in models:
        variant = lineage.variant(model.name)
        answers.scores[variant], answers.items[variant] = [], {}
        for task in tasks:
            score, items = read_task(model, model.tasks[task], names[task], by_document=by_document)
            answers.scores[variant].append(score)
            answers.items[variant][names[task]] = items
    for place, task in enumerate(tasks):
        _check_one_metric(task, {model.name: answers.scores[lineage.variant(model.name)][place].metric for model in models})
    for model in models:
        if (parent := lineage.parents.get(model.name)) is not None:
            for task in tasks:
                one, other = (answers.items[lineage.variant(name)][names[task]] for name in (model.name, parent))
                check_paired(task, model.name, one, parent, other)
    return answers


def by_values(models: Sequence[ModelResults], tasks: Sequence[str], names: Mapping[str, str], lineage: Lineage) -> Answers:
    """The scores of every model, each with the number of items that its standard error stands for.

    Raises:
        BadInput: a score that is no share, or of which nothing tells how sure it is.
    """
    answers = Answers({}, {}, {}, {})
    for task in tasks:
        _check_one_metric(task, {model.name: metric_of(model.tasks[task]) for model in models})
    for model in models:
        variant = lineage.variant(model.name)
        answers.scores[variant], answers.values[variant], answers.counts[variant] = [], {}, {}
        for task in tasks:
            result = model.tasks[task]
            metric = metric_of(result)
            value, error = result.scores[metric]
            if not 0 <= value <= 1:
                raise BadInput(
                    f"{model.paths[0]}: {metric} of {task} is {value:g}; lm-eval writes shares between 0 and 1, so it was changed"
                )
            count = _count(result, value, error)
            if not count:
                raise BadInput(
                    f"{model.paths[0]}: {task} states neither its number of items nor a standard error, so nothing tells how sure it is"
                )
            answers.values[variant][names[task]], answers.counts[variant][names[task]] = value, count
            answers.scores[variant].append(_score(names[task], metric, value, error, count))
    return answers


def _check_one_metric(task: str, metrics: Mapping[str, str]) -> None:
    if len(set(metrics.values())) > 1:
        raise BadInput(
            f"{task}: {', '.join(f'{metric} of {name}' for name, metric in metrics.items())} are other metrics or filters of answers; "
            "evaluate all models with one version of the task, or leave it out with --task"
        )


def _count(result: TaskResult, value: float, error: float | None) -> int:
    """The number of right or wrong items that has the stated standard error: that of the items, or less where they are weighed."""
    if error and 0 < value < 1:
        # lm-eval divides by n - 1.
        return min(result.items or 2**62, round(value * (1 - value) / error**2) + 1)
    return result.items


def _score(task: str, metric: str, value: float, error: float | None, count: int) -> TaskScore:
    return TaskScore(
        task=task,
        items=count,
        bits_per_byte=None,
        bits_per_byte_stderr=None,
        accuracy=value,
        accuracy_stderr=error or (value * (1 - value) / count) ** 0.5,
        metric=metric.removesuffix(",none"),
        chance=None,
        engine="lm-eval",
        weights=WEIGHTS,
        bos=False,
        truncated=0,
        prompts="",
    )
