"""From lm-eval's samples to the records: per-item results, their means and standard errors, and their parquet file.

Nothing here imports torch or lm_eval, so that the statistics and the report can read items at no cost.
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
# Which of a stock task's own metrics is its accuracy: the first of these that it reports.
PREFERRED = ("acc_norm", "acc", "exact_match", "em", "pass@1")


@dataclass(frozen=True)
class Answered:
    """One item with all that was computed for it.

    Attributes:
        requests: the (prompt, continuation) pairs, or (prompt, generation settings as JSON).
        logprobs: log P(continuation | prompt) of each request in nats; empty for generated answers.
        gold: the requests that are right answers; empty where there is no gold continuation.
        options: number of options to choose from; 0 where there is no choice.
        choice: the option chosen, -1 where there is none.
        correct: by the task's main metric. metrics: by each metric that gives a number for an item.
        generated: the answer's text, where it was generated.
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
class Circumstances:
    """How the answers came about, as `TaskScore` records it; and the tokens of each continuation."""

    engine: str
    weights: str
    bos: bool
    truncated: frozenset[Pair]
    lengths: Mapping[Pair, int]
    compute: Mapping[str, str]


def pair(args: Sequence[Any]) -> Pair:
    """A request's prompt and continuation, or prompt and generation settings as JSON."""
    return str(args[0]), args[1] if isinstance(args[1], str) else json.dumps(args[1], sort_keys=True, default=str)


def characters(continuation: str) -> int:
    """Characters of a continuation without its leading space: what `acc_per_char` divides by."""
    return max(len(continuation.removeprefix(" ")), 1)


def utf8_bytes(continuation: str) -> int:
    """UTF-8 bytes of a continuation without its leading space: what bits-per-byte divides by, as the OLMo ladder counts."""
    return max(len(continuation.removeprefix(" ").encode()), 1)


def bits_per_byte(logprob: float, continuation: str) -> float:
    """Bits-per-byte of a continuation of log-probability `logprob` (in nats)."""
    return -logprob / math.log(2) / utf8_bytes(continuation)


def choose(logprobs: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The option of highest log-probability, divided by `lengths` if they are given; the first one of equals."""
    scores = np.asarray(logprobs, dtype=np.float64) / (1 if lengths is None else np.asarray(lengths, dtype=np.float64))
    return int(np.argmax(scores))


def primary_metric(sample: Mapping[str, Any]) -> str:
    """The metric of a stock task that stands as its accuracy: the first of `PREFERRED` it has, else its first number.

    Raises:
        RunFailed: the task reports nothing that is a number per item.
    """
    found = numbers(sample)
    for name in (*PREFERRED, *found):
        if name in found:
            return name
    raise RunFailed(f"none of the metrics {', '.join(sample['metrics']) or '(none)'} is a number for each item")


def numbers(sample: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one of lm-eval's samples that are a number for the item."""
    return {name: float(sample[name]) for name in sample["metrics"] if isinstance(sample[name], (int, float, np.number))}


def summarise(
    task: str, metric: str, items: Sequence[Answered], circumstances: Circumstances, *, chance: float | None = None
) -> tuple[TaskScore, ItemScores]:
    """The records of one task. Without a given `chance` it is that of a uniform guess among each item's options,
    where items are right or wrong.

    Where several requests are right, bits-per-byte is that of the likeliest.

    Raises:
        RunFailed: a log-likelihood is not finite; the message says of how many items.
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
        engine=circumstances.engine,
        weights=circumstances.weights,
        bos=circumstances.bos,
        truncated=sum(any(pair in circumstances.truncated for pair in item.requests) for item in items),
        prompts=prompts_hash(items),
        compute=dict(circumstances.compute),
    )
    columns = ItemScores(
        task=task,
        item=[item.id for item in items],
        bits_per_byte=bits if gold_known else None,
        correct=correct,
        choice=[item.choice for item in items],
        gold=[item.gold[0] if item.options and item.gold else -1 for item in items],
        logprob=[min(logprob, 0.0) for _, logprob in best] if gold_known else None,  # rounding may put a sure answer above 0
        prompt_hash=[prompts_hash([item]) for item in items],
        details=[_detail(item, circumstances.lengths) for item in items],
    )
    return score, columns


def _detail(item: Answered, lengths: Mapping[Pair, int]) -> ItemDetail:
    contexts = [context for context, _ in item.requests]
    # Options may differ in the question instead of in the answer (winogrande): what all have in common counts as the prompt.
    prompt = os.path.commonprefix(contexts)  # noqa: RUF071 - of strings, not of paths
    options = [context[len(prompt) :] + continuation for context, continuation in item.requests] if item.generated is None else []
    return ItemDetail(
        prompt=prompt,
        prompt_hash=prompts_hash([item]),
        options=options,
        generated=item.generated,
        logprobs=list(item.logprobs),
        tokens=[lengths[pair] for pair in item.requests if pair in lengths],
        bytes=[utf8_bytes(continuation) for _, continuation in item.requests] if item.generated is None else [],
        metrics=dict(item.metrics),
    )


def prompts_hash(items: Sequence[Answered]) -> str:
    """sha256 over all prompts and continuations in order; equal if and only if two runs asked the same."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, *map(list, item.requests)]).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def write_items(path: Path, items: ItemScores) -> None:
    """Write per-item results as parquet, one row an item, each metric a column of its own. The same results give the same bytes."""
    import pandas as pd  # half a second, and a run that is all cached would wait for it before its first line

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
        details = pd.DataFrame([detail.model_dump(exclude={"metrics"}) for detail in items.details])
        metrics = pd.DataFrame([detail.metrics for detail in items.details]).add_prefix("metric.")
        frame = pd.concat([frame, details, metrics], axis=1)
    frame.to_parquet(path, engine="pyarrow", index=False, compression="zstd")


def read_items(path: Path) -> ItemScores:
    """Read what `write_items` wrote, without the details, which only a reader of single items needs.

    Raises:
        RunFailed: the file is no such file.
    """
    import pandas as pd
    from pyarrow.parquet import read_schema

    try:
        there = set(read_schema(path).names)
        columns = [name for name in ItemScores.model_fields if name != "details" and (name != "prompt_hash" or name in there)]
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
            prompt_hash=frame["prompt_hash"].astype(str).tolist() if "prompt_hash" in there else None,
        )
    except (OSError, KeyError, IndexError, ValueError) as problem:
        raise RunFailed(f"{path} does not hold per-item results: {problem}; delete it and evaluate again") from problem


def read_details(path: Path, rows: Sequence[int]) -> list[ItemDetail]:
    """The details of some items, by their place.

    Raises:
        RunFailed: the file has no such columns or rows.
    """
    from pyarrow.parquet import read_table

    names = [name for name in ItemDetail.model_fields if name != "metrics"]
    try:
        table = read_table(path)
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
