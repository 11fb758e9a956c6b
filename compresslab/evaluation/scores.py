"""Turns lm-eval's samples into records: per-item results, their means and standard errors, and their parquet file.

Nothing here imports torch or lm_eval, so that statistics and reports can read items without these imports.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compresslab.errors import RunFailed
from compresslab.records import ItemDetail, ItemScores, TaskScore

Pair = tuple[str, str]
# The accuracy of a stock task is the first of these metrics that it reports.
PREFERRED = ("acc_norm", "acc", "exact_match", "em", "pass@1")


@dataclass(frozen=True)
class AnsweredItem:
    """One item with all computed results.

    Attributes:
        requests: the (prompt, continuation) pairs, or (prompt, generation settings as JSON).
        logprobs: log P(continuation | prompt) of each request in nats; empty for generated answers.
        gold: indices of the requests that are right answers; empty if there are none.
        options: number of options; 0 if there is no choice.
        choice: index of the chosen option; -1 if there is none.
        correct: value of the task's main metric. metrics: values of all metrics that are a number for an item.
        generated: the text of a generated answer.
    """

    id: str
    requests: Sequence[Pair]
    logprobs: Sequence[float]
    gold: Sequence[int]
    options: int
    choice: int
    correct: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    generated: str | None = None


@dataclass(frozen=True)
class AnswerConditions:
    """How answers were computed, as `TaskScore` records it, with the number of tokens of each continuation, and whether a generated one was
    cut at its limit of tokens, where that is known."""

    engine: str
    weights: str
    bos: bool
    truncated: frozenset[Pair]
    lengths: Mapping[Pair, int]
    compute: Mapping[str, str]
    cut: Mapping[Pair, bool] = field(default_factory=dict)


def pair(args: Sequence[Any]) -> Pair:
    """A request's prompt and continuation, or prompt and generation settings as JSON."""
    return str(args[0]), args[1] if isinstance(args[1], str) else json.dumps(args[1], sort_keys=True, default=str)


def characters(continuation: str) -> int:
    """Number of characters of a continuation without its leading space, the divisor of `acc_per_char`."""
    return max(len(continuation.removeprefix(" ")), 1)


def utf8_bytes(continuation: str) -> int:
    """UTF-8 bytes of a continuation without its leading space, the divisor of bits-per-byte in the OLMo ladder."""
    return max(len(continuation.removeprefix(" ").encode()), 1)


def bits_per_byte(logprob: float, continuation: str) -> float:
    """Bits-per-byte of a continuation of log-probability `logprob` (in nats)."""
    return -logprob / math.log(2) / utf8_bytes(continuation)


def choose(logprobs: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The first option of highest log-probability, divided by `lengths` if they are given."""
    scores = np.asarray(logprobs, dtype=np.float64) / (1 if lengths is None else np.asarray(lengths, dtype=np.float64))
    return int(np.argmax(scores))


def primary_metric(sample: Mapping[str, Any]) -> str:
    """The metric that is a stock task's accuracy: the first of `PREFERRED` that it has, else its first numeric metric.

    Raises:
        RunFailed: no metric of the task is a number per item.
    """
    found = numbers(sample)
    for name in (*PREFERRED, *found):
        if name in found:
            return name
    raise RunFailed(f"none of the metrics {', '.join(sample['metrics']) or '(none)'} is a number for each item")


def numbers(sample: Mapping[str, Any]) -> dict[str, float]:
    """The numeric metrics of one of lm-eval's samples."""
    return {name: float(sample[name]) for name in sample["metrics"] if isinstance(sample[name], (int, float, np.number))}


def summarise(
    task: str, metric: str, items: Sequence[AnsweredItem], conditions: AnswerConditions, *, chance: float | None = None
) -> tuple[TaskScore, ItemScores]:
    """The records of one task.

    The default of `chance` is the accuracy of uniform guesses among each item's options, if items are right or wrong. If several
    requests are right, bits-per-byte is that of the most likely one.

    Raises:
        RunFailed: a log-likelihood is not finite; the message contains the number of such items.
    """
    broken = [item.id for item in items if not all(map(math.isfinite, (*item.logprobs, item.correct)))]
    if broken:
        raise RunFailed(
            f"{task}: the log-likelihoods of {len(broken)} of {len(items)} items are not finite (the first is item {broken[0]}); "
            "the model's logits overflow or hold NaN, so its weights are broken or its dtype is too narrow"
        )
    best = [min((bits_per_byte(item.logprobs[i], item.requests[i][1]), item.logprobs[i]) for i in item.gold) for item in items if item.gold]
    bits = [bits for bits, _ in best]
    gold_known = len(bits) == len(items)
    correct = [float(item.correct) for item in items]
    if chance is None and all(item.options and item.correct in (0.0, 1.0) for item in items):
        chance = float(np.mean([max(len(item.gold), 1) / item.options for item in items]))
    score = TaskScore(
        task=task,
        items=len(items),
        bits_per_byte=float(np.mean(bits)) if gold_known else None,
        bits_per_byte_stderr=_stderr(bits) if gold_known else None,
        accuracy=float(np.mean(correct)),
        accuracy_stderr=_stderr(correct),
        metric=metric,
        chance=chance,
        engine=conditions.engine,
        weights=conditions.weights,
        bos=conditions.bos,
        truncated=sum(any(pair in conditions.truncated for pair in item.requests) for item in items),
        prompts=prompts_hash(items),
        compute=dict(conditions.compute),
    )
    columns = ItemScores(
        task=task,
        item=[item.id for item in items],
        bits_per_byte=bits if gold_known else None,
        correct=correct,
        choice=[item.choice for item in items],
        gold=[item.gold[0] if item.options and item.gold else -1 for item in items],
        logprob=[min(logprob, 0.0) for _, logprob in best] if gold_known else None,  # rounding may make it larger than 0
        prompt_hash=[prompts_hash([item]) for item in items],
        details=[_detail(item, conditions) for item in items],
    )
    return score, columns


def _detail(item: AnsweredItem, conditions: AnswerConditions) -> ItemDetail:
    contexts = [context for context, _ in item.requests]
    # Options may differ in the question instead of in the answer (winogrande). The prompt is the common prefix of all.
    prompt = os.path.commonprefix(contexts)  # noqa: RUF071 - of strings, not of paths
    options = [context[len(prompt) :] + continuation for context, continuation in item.requests] if item.generated is None else []
    return ItemDetail(
        prompt=prompt,
        prompt_hash=prompts_hash([item]),
        options=options,
        generated=item.generated,
        logprobs=list(item.logprobs),
        tokens=[conditions.lengths[pair] for pair in item.requests if pair in conditions.lengths],
        bytes=[utf8_bytes(continuation) for _, continuation in item.requests] if item.generated is None else [],
        metrics=dict(item.metrics),
        cut=None if item.generated is None else conditions.cut.get(item.requests[0]),
    )


def prompts_hash(items: Sequence[AnsweredItem]) -> str:
    """sha256 of all prompts and continuations in order, equal if and only if two runs had the same requests."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, *map(list, item.requests)]).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def write_items(path: Path, items: ItemScores) -> None:
    """Write per-item results as parquet, with one row per item and one column per metric. Equal results have equal bytes."""
    import pandas as pd  # the import takes half a second, which a fully cached run need not wait for

    rows = len(items.item)
    frame = pd.DataFrame(
        {
            "task": pd.Series([items.task] * rows, dtype=object),
            "item": pd.Series(items.item, dtype=object),
            "bits_per_byte": np.full(rows, np.nan) if items.bits_per_byte is None else np.asarray(items.bits_per_byte, dtype=np.float64),
            "correct": np.asarray(items.correct, dtype=np.float64),
            "choice": np.asarray(items.choice, dtype=np.int32),
            "gold": np.asarray(items.gold, dtype=np.int32),
            "logprob": np.full(rows, np.nan) if items.logprob is None else np.asarray(items.logprob, dtype=np.float64),
        }
    )
    if items.prompt_hash is not None and items.details is None:
        frame["prompt_hash"] = pd.Series(items.prompt_hash, dtype=object)
    if items.details is not None:
        details = pd.DataFrame([detail.model_dump(exclude={"metrics", "cut"}) for detail in items.details])
        if any(detail.cut is not None for detail in items.details):
            details["cut"] = pd.array([detail.cut for detail in items.details], dtype="boolean")
        metrics = pd.DataFrame([detail.metrics for detail in items.details]).add_prefix("metric.")
        frame = pd.concat([frame, details, metrics], axis=1)
    frame.to_parquet(path, engine="pyarrow", index=False, compression="zstd")


def read_items(path: Path) -> ItemScores:
    """Read a file of `write_items`, without the details of single items.

    Raises:
        RunFailed: it is no such file.
    """
    import pandas as pd
    from pyarrow.parquet import read_schema

    try:
        names = set(read_schema(path).names)
        columns = [name for name in ItemScores.model_fields if name != "details" and (name != "prompt_hash" or name in names)]
        frame = pd.read_parquet(path, engine="pyarrow", columns=columns)
        bits, logprob = frame["bits_per_byte"], frame["logprob"]
        return ItemScores(
            task=str(frame["task"].iloc[0]),
            item=frame["item"].astype(str).tolist(),
            bits_per_byte=None if bool(bits.isna().all()) else bits.tolist(),
            correct=frame["correct"].tolist(),
            choice=frame["choice"].tolist(),
            gold=frame["gold"].tolist(),
            logprob=None if bool(logprob.isna().all()) else logprob.tolist(),
            prompt_hash=frame["prompt_hash"].astype(str).tolist() if "prompt_hash" in names else None,
        )
    except (OSError, KeyError, IndexError, ValueError) as problem:
        raise RunFailed(f"{path} does not hold per-item results: {problem}; delete it and evaluate again") from problem


def read_details(path: Path, rows: Sequence[int]) -> list[ItemDetail]:
    """The details of the items in the given rows.

    Raises:
        RunFailed: the file has no such columns or rows.
    """
    from pyarrow.parquet import read_table

    try:
        table = read_table(path)
        # Files in which nobody noted whether an answer was cut lack that column.
        names = [name for name in ItemDetail.model_fields if name != "metrics" and (name != "cut" or name in table.column_names)]
        metrics = [name for name in table.column_names if name.startswith("metric.")]
        found = table.select([*names, *metrics]).take(list(rows)).to_pylist()
    except (OSError, KeyError, IndexError, ValueError) as problem:
        raise RunFailed(f"{path} does not hold the items' prompts and answers: {problem}; delete it and evaluate again") from problem
    return [
        ItemDetail(
            **{name: row[name] for name in names},
            metrics={name.removeprefix("metric."): row[name] for name in metrics if row[name] is not None},
        )
        for row in found
    ]


def _stderr(values: Sequence[float]) -> float:
    """Standard error of a mean over items; 0 for a single item."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
