"""lm-eval's samples as per-item results, by the same rules as the evaluation of a study (`evaluation.harness`).

A sample holds what was asked (`arguments`), the answers (`resps`) and the metrics, and not the task's code. The right option is the
`target`; where the options differ in the question (winogrande), it follows from `acc`. That log-likelihoods, target and accuracy agree is
checked item by item.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation.scores import (
    AnswerConditions,
    AnsweredItem,
    Pair,
    choose,
    numbers,
    pair,
    primary_metric,
    prompts_hash,
    summarise,
)
from compresslab.inputs import open_regular, reason
from compresslab.records import ItemScores, TaskScore
from compresslab.studies.imported.files import ModelResults, TaskResult

NEEDED = ("doc_id", "target", "arguments", "resps", "filter", "metrics")
WEIGHTS = "as lm-eval loaded them; BOS and cut prompts are not stated"
CONDITIONS = AnswerConditions("lm-eval", WEIGHTS, False, frozenset(), {}, {})
KINDS = ("multiple_choice", "loglikelihood", "generate_until")


class _Sample(NamedTuple):
    """One line of a file, with where it stands."""

    where: str
    content: Mapping[str, Any]


def read_task(model: ModelResults, task: TaskResult, name: str, *, by_document: bool = False) -> tuple[TaskScore, ItemScores]:
    """The records of one task from its files of samples.

    Args:
        name: the task's name in the records.
        by_document: an item is the same question if its document is, whatever chat template was put around it.

    Raises:
        BadInput: a file is not as lm-eval 0.4 writes it, or its log-likelihoods do not give the accuracy that it states.
    """
    answered: list[AnsweredItem] = []
    hashes: list[str] = []
    metrics: set[str] = set()
    for leaf in task.leaves:
        prefix = f"{leaf}/" if len(task.leaves) > 1 else ""
        for metric, item, document in _leaf(model.samples[leaf], model.configs[leaf], prefix):
            metrics.add(metric)
            answered.append(item)
            hashes.append(document if by_document else prompts_hash([item]))
    if len(metrics) > 1:
        raise BadInput(
            f"{model.name}: the parts of {task.name} are scored by different metrics ({', '.join(sorted(metrics))}); leave it out"
        )
    try:
        score, items = summarise(name, metrics.pop(), answered, CONDITIONS)
    except RunFailed as error:
        raise BadInput(f"{model.name}: {error}") from error
    return score, items.model_copy(update={"prompt_hash": hashes})


def _leaf(path: Path, config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, AnsweredItem, str]]:
    """Metric, item and document of each sample of the first filter, by rising number of the document."""
    samples = list(_read(path))
    if not samples:
        raise BadInput(f"{path} has no samples")
    first = samples[0].content["filter"]
    samples = [sample for sample in samples if sample.content["filter"] == first]
    # Several processes of lm-eval write their parts of the documents in turn.
    samples.sort(key=lambda sample: int(sample.content["doc_id"]))
    kind = config.get("output_type")
    if kind not in KINDS:
        raise BadInput(f"{path}: the task's output_type is {kind}; samples of {', '.join(KINDS)} can be read")
    golds = _golds(samples, config) if kind == "multiple_choice" else []
    for number, sample in enumerate(samples):
        content = sample.content
        try:
            metric = primary_metric(content)
        except (RunFailed, KeyError) as error:
            raise BadInput(f"{sample.where}: {error}") from error
        name = metric if first == "none" else f"{metric},{first}"
        requests, metrics = _requests(sample), numbers(content)
        item = f"{prefix}{content['doc_id']}"
        document = str(content.get("doc_hash") or item)
        if kind == "generate_until":
            text = str(_response(sample, 0))
            yield name, AnsweredItem(item, requests, [], [], 0, -1, metrics[metric], metrics, text), document
            continue
        logprobs = [_logprob(sample, number) for number in range(len(requests))]
        if kind == "loglikelihood":
            yield name, AnsweredItem(item, requests, logprobs, [0], 0, -1, metrics[metric], metrics), document
            continue
        requests, logprobs = _options(content, requests, logprobs)
        choice = choose(logprobs, _lengths(requests, config) if metric == "acc_norm" else None)
        yield name, AnsweredItem(item, requests, logprobs, golds[number], len(requests), choice, metrics[metric], metrics), document


def _read(path: Path) -> Iterator[_Sample]:
    try:
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                where = f"{path}, line {number}"
                try:
                    content = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise BadInput(f"{where}: no JSON ({error}); copy the file again") from error
                missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
                if missing:
                    raise BadInput(
                        f"{where}: no {', '.join(missing)}, which lm-eval 0.4 writes into every sample; evaluate again with it and "
                        "--log_samples, or leave the samples out"
                    )
                if type(content["doc_id"]) is not int:
                    raise BadInput(f"{where}: doc_id is {content['doc_id']!r}; it must be a whole number")
                yield _Sample(where, content)
    except OSError as error:
        raise BadInput(f"the samples {path} cannot be read ({reason(error)})") from error


def _requests(sample: _Sample) -> list[Pair]:
    """The (prompt, continuation) pairs; lm-eval numbers them in their keys."""
    arguments = sample.content["arguments"]
    try:
        rows = [arguments[f"gen_args_{i}"] for i in range(len(arguments))] if isinstance(arguments, dict) else list(arguments)
        values = [[row[f"arg_{j}"] for j in range(len(row))] if isinstance(row, dict) else list(row) for row in rows]
        return [pair(value) for value in values]
    except (KeyError, IndexError, TypeError) as error:
        raise BadInput(f"{sample.where}: its arguments are not as lm-eval 0.4 writes them ({error!r})") from error


def _response(sample: _Sample, number: int) -> Any:
    """The first answer to a request: a text, or a log-likelihood with whether it is the greedy one."""
    try:
        return sample.content["resps"][number][0]
    except (IndexError, KeyError, TypeError) as error:
        raise BadInput(f"{sample.where}: its resps are not as lm-eval 0.4 writes them ({error!r})") from error


def _logprob(sample: _Sample, number: int) -> float:
    answer = _response(sample, number)
    try:
        return float(answer[0])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{sample.where}: {str(answer)[:60]} is no log-likelihood") from error


def _options(content: Mapping[str, Any], requests: list[Pair], logprobs: list[float]) -> tuple[list[Pair], list[float]]:
    """Without the second half, in which mutual information asks for every option without the question."""
    own = len(requests) // 2 if "acc_mutual_info" in content["metrics"] else len(requests)
    return requests[:own], logprobs[:own]


def _texts(requests: Sequence[Pair], config: Mapping[str, Any]) -> list[str]:
    """The options as the task has them: without what lm-eval puts between question and answer; the questions where these differ."""
    if _differ_in_the_question(requests):
        return [context for context, _ in requests]
    delimiter = str(config.get("target_delimiter", " "))
    return [continuation.removeprefix(delimiter) for _, continuation in requests]


def _differ_in_the_question(requests: Sequence[Pair]) -> bool:
    return len({context for context, _ in requests}) > 1


def _lengths(requests: Sequence[Pair], config: Mapping[str, Any]) -> list[int]:
    return [max(len(text), 1) for text in _texts(requests, config)]


def _golds(samples: Sequence[_Sample], config: Mapping[str, Any]) -> list[list[int]]:
    """The right options of each sample, none where nothing tells.

    A target such as "1" is an index or the text of an option. Of the two readings the one is taken that gives every stated accuracy.

    Raises:
        BadInput: neither does.
    """
    problems = []
    for by_text in (False, True):
        golds, problem = [], ""
        for sample in samples:
            asked = _requests(sample)
            requests, logprobs = _options(sample.content, asked, [_logprob(sample, number) for number in range(len(asked))])
            gold = _gold(sample.content, requests, logprobs, config, by_text=by_text)
            problem = problem or _disagreement(sample, requests, logprobs, gold, config)
            golds.append(gold)
        if not problem:
            return golds
        problems.append(problem)
    raise BadInput(problems[0])


def _gold(
    content: Mapping[str, Any], requests: Sequence[Pair], logprobs: Sequence[float], config: Mapping[str, Any], *, by_text: bool
) -> list[int]:
    if _differ_in_the_question(requests):
        # The target is the common continuation. Of two options the other one is right where the chosen one is not.
        chosen, right = choose(logprobs), content.get("acc")
        return [chosen] if right == 1 else [1 - chosen] if right == 0 and len(requests) == 2 else []
    target, texts = str(content["target"]), _texts(requests, config)
    try:
        parsed = ast.literal_eval(target) if target[:1] == "[" else target
    except (ValueError, SyntaxError):
        parsed = target
    found = []
    for one in parsed if isinstance(parsed, list) else [parsed]:
        text = str(one)
        if text in texts and (by_text or not text.isdecimal()):
            found.append(texts.index(text))
        elif text.isdecimal() and int(text) < len(requests):
            found.append(int(text))
    return found


def _disagreement(
    sample: _Sample, requests: Sequence[Pair], logprobs: Sequence[float], gold: Sequence[int], config: Mapping[str, Any]
) -> str:
    """Why an accuracy is not that of the log-likelihoods, in words; "" if it is, or if the task has a rule of its own."""
    if config.get("process_results"):
        return ""
    for metric, lengths in (("acc", None), ("acc_norm", _lengths(requests, config))):
        if metric == "acc_norm" and _differ_in_the_question(requests):
            continue
        stated, chosen = sample.content.get(metric), choose(logprobs, lengths)
        if stated in (0, 1) and gold and (chosen in gold) != bool(stated):
            return (
                f"{sample.where}: its log-likelihoods choose option {chosen}, its target is {sample.content['target']}, and its {metric} "
                f"is {stated}; that is not as lm-eval writes it, so import the file that it wrote"
            )
        if stated == 1 and not gold:
            return f"{sample.where}: {metric} is 1, and its target {str(sample.content['target'])[:60]!r} is none of its options"
    return ""
