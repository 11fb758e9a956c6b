"""Evaluates a model in memory task by task with lm-eval's evaluator, and makes the records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.evaluator
import lm_eval.models.huggingface
import transformers
from lm_eval.api.task import Task

from compresslab.catalog import olmes
from compresslab.errors import BadInput, CompresslabError, RunFailed
from compresslab.evaluation import code_tasks, scores, tasks
from compresslab.evaluation.backends import EvaluationLM
from compresslab.evaluation.olmes_requests import Item
from compresslab.evaluation.sandbox.programs import UNCONFINED
from compresslab.models.progress import Amount, Progress, silent
from compresslab.recipe.schema import Evaluate
from compresslab.records import ItemScores, TaskScore

Result = tuple[TaskScore, ItemScores]


def evaluate_model(
    lm: EvaluationLM,
    names: Sequence[str],
    config: Evaluate,
    *,
    weights: str = "as stored",
    trust_code: bool = False,
    done: Callable[[TaskScore, ItemScores], None] | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Answer the tasks `names` with `lm` and return their records in that order.

    Args:
        lm: the lm-eval model; see `backends.load_lm`.
        names: OLMES tasks or lm-eval's tasks; those of `config.tasks` that are not done yet.
        config: contains the number of items (per leaf of a group) and the seed. Dtype and backend are those of `lm`.
        weights: "as stored" or "dequantized", for the record.
        trust_code: run programs of the model without a sandbox; the metric's name then says so.
        done: called with the records of each finished task, so that a killed evaluation resumes after it.
        progress: receives the share done of all tasks, the name of the task, and the number of answered items.

    Raises:
        BadInput: a task does not exist or its data cannot be read; raised before anything is computed.
        RunFailed: log-likelihoods are not finite, or prompts do not fit and `config` does not allow truncation.
    """
    results: list[Result] = []
    with quiet():
        loaded_tasks = [(name, tasks.load(name, seed=config.seed, run_code=config.run_code, trust_code=trust_code)) for name in names]
        items = [_items(leaves, config) for _, leaves in loaded_tasks]
        for index, (name, leaves) in enumerate(loaded_tasks):
            lm.progress = partial(_report, progress, name, index, items)
            lm.progress(0.0)
            result = _evaluate_task(lm, name, leaves, config, weights, trust_code)
            results.append(result)
            if done is not None:
                done(*result)
    return results


def _report(progress: Progress, name: str, index: int, items: Sequence[int], share: float) -> None:
    done = sum(items[:index]) + share * items[index]
    progress((index + share) / len(items), name, Amount(done, sum(items), "items"))


def _items(leaves: dict[str, Task], config: Evaluate) -> int:
    """The number of items of a task, over all its leaves."""
    sizes = [len(task.eval_docs) for task in leaves.values()]
    return sum(sizes if config.items == "all" else (min(config.items, number) for number in sizes))


def _evaluate_task(lm: EvaluationLM, name: str, leaves: dict[str, Task], config: Evaluate, weights: str, trust_code: bool) -> Result:
    """Evaluate one task, or a group as the union of its leaves, in which each item has the same weight."""
    lm.truncated.clear()
    lm.lengths.clear()
    lm.cut.clear()
    limit = None if config.items == "all" else config.items
    with _metric_failures(leaves) as failures:
        answers = lm_eval.evaluator.evaluate(
            lm, {"tasks": leaves}, limit=limit, log_samples=True, bootstrap_iters=0, confirm_run_unsafe_code=config.run_code
        )
    if failures:
        samples = [(leaf, sample) for leaf in leaves for sample in _first_filter(answers["samples"][leaf])]
        failed = [f"{leaf}/{sample['doc_id']}" for leaf, sample in samples if not sample["metrics"]]
        raise RunFailed(
            f"the metric of {name} fails on {len(failed)} of {len(samples)} items "
            f"({', '.join(failed[:5])}{', …' if len(failed) > 5 else ''}): {type(failures[0]).__name__}: {failures[0]}; "
            "a score without them would be of another task"
        ) from failures[0]
    answered: list[scores.AnsweredItem] = []
    metrics: set[str] = set()
    for leaf, task in leaves.items():
        prefix = f"{leaf}/" if len(leaves) > 1 else ""
        for sample in _first_filter(answers["samples"][leaf]):
            metric, item = _answered(task, sample, prefix)
            metrics.add(metric)
            answered.append(item)
    if len(metrics) > 1:
        raise BadInput(f"the tasks of {name} are scored by different metrics ({', '.join(sorted(metrics))}); name them one by one")
    conditions = scores.AnswerConditions(lm.engine, weights, lm.bos, frozenset(lm.truncated), dict(lm.lengths), lm.compute, dict(lm.cut))
    chance = olmes.TASKS[name].chance if olmes.is_olmes(name) else None
    metric = metrics.pop()
    if trust_code and any(code_tasks.running(task).runs for task in leaves.values()):
        metric += UNCONFINED
    return scores.summarise(name, metric, answered, conditions, chance=chance)


@contextmanager
def _metric_failures(leaves: dict[str, Task]) -> Iterator[list[BaseException]]:
    """A context that collects the errors of metrics on single items, so that all such items can be counted."""
    failures: list[BaseException] = []

    def collect_errors(process: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        try:
            return process(*args)
        except CompresslabError:  # the sandbox is broken, for all programs
            raise
        except (Exception, SystemExit) as error:  # the code of a task may raise any error, and end the process
            failures.append(error)
            return {}

    for task in leaves.values():
        task.process_results = partial(collect_errors, task.process_results)
    try:
        yield failures
    finally:
        for task in leaves.values():
            task.process_results = task.process_results.args[0]


def _first_filter(samples: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The samples of the first filter, which scores a task with several filters (gsm8k: strict, flexible)."""
    first = samples[0]["filter"]
    return (sample for sample in samples if sample["filter"] == first)


def _answered(task: Task, sample: dict[str, Any], prefix: str) -> tuple[str, scores.AnsweredItem]:
    """The name of the metric that scores one of lm-eval's samples, and the sample as an `AnsweredItem`."""
    requests = [scores.pair(args) for args in sample["arguments"]]
    metrics = scores.numbers(sample)
    if isinstance(task, tasks.OlmesRequests):
        doc: Item = sample["doc"]
        logprobs = [float(response[0][0]) for response in sample["resps"]]
        choice = task.choice(doc, logprobs)
        return task.olmes.metric, scores.AnsweredItem(
            doc.id, requests, logprobs, [doc.gold], len(requests), choice, metrics[task.olmes.metric], metrics
        )
    metric = scores.primary_metric(sample)
    name = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
    identifier, correct = f"{prefix}{sample['doc_id']}", float(sample[metric])
    if task.OUTPUT_TYPE == "generate_until":
        generated = str(sample["resps"][0][0])
        return name, scores.AnsweredItem(identifier, requests, [], [], 0, -1, correct, metrics, generated)
    logprobs = [float(response[0][0]) for response in sample["resps"]]
    if task.OUTPUT_TYPE == "loglikelihood":
        return name, scores.AnsweredItem(identifier, requests, logprobs, [0], 0, -1, correct, metrics)
    options = task.doc_to_choice(sample["doc"])
    # A task scored by mutual information requests every option twice, the second time without the question.
    requests, logprobs = requests[: len(options)], logprobs[: len(options)]
    lengths = [max(len(option), 1) for option in options] if metric == "acc_norm" else None
    gold, choice = _gold(task, sample["doc"], options), scores.choose(logprobs, lengths)
    return name, scores.AnsweredItem(identifier, requests, logprobs, gold, len(options), choice, correct, metrics)


def _gold(task: Task, doc: dict[str, Any], options: Sequence[str]) -> list[int]:
    """Indices of the right options, determined like in lm-eval; empty if there is none."""
    target = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    targets = target if isinstance(target, list) else [target]
    found = [options.index(one) if isinstance(one, str) and one in options else one for one in targets]
    return [int(one) for one in found if isinstance(one, int) and 0 <= one < len(options)]


def _without_bar(bar: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    return bar(*args, **{**settings, "disable": True})


@contextmanager
def quiet() -> Iterator[None]:
    """A context without progress bars and log messages of the libraries."""
    with ExitStack() as restore:
        # lm-eval has no setting for its progress bar of building requests.
        for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface):
            restore.callback(setattr, module, "tqdm", module.tqdm)
            module.tqdm = partial(_without_bar, module.tqdm)
        for name in ("lm_eval", "datasets", "huggingface_hub"):
            logger = logging.getLogger(name)
            restore.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        restore.callback(transformers.logging.set_verbosity, transformers.logging.get_verbosity())
        transformers.logging.set_verbosity_error()
        if not datasets.are_progress_bars_disabled():
            restore.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        yield
