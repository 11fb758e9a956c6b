"""What a variant scored, item by item, and how fast it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compresslab.records.base import Record, StoredRecord
from compresslab.records.compute import Dtype


class TaskScore(StoredRecord):
    """One variant on one task.

    Attributes:
        items: number of items answered.
        bits_per_byte: mean over items of -log2 P(gold | prompt) / bytes of the gold continuation without its leading
            space (the OLMo ladder's count). `None` for tasks without a gold continuation.
        accuracy: mean over items of the task's accuracy; for OLMES tasks length-normalised by characters.
        metric: which accuracy this is, e.g. "acc_per_char", "acc", "exact_match".
        chance: accuracy of a uniform guess. `None` where the task has no options.
        engine: how the answers were computed: "tree", "batched", "shared", "branched", "plain" (docs/evaluation.md); "published" for a
            score taken from a table.
        weights: "as stored" or "dequantized" (equal mathematics, much faster than a packed kernel on a CPU).
        bos: whether a beginning-of-sequence token was put first.
        truncated: items whose prompt did not fit the model's context and was cut from the left.
        prompts: sha256 over all prompts and continuations.
        compute: dtype and backend of the forward passes; empty for a score taken from a table.
    """

    version: Literal[1] = 1
    task: str
    items: int
    bits_per_byte: float | None
    bits_per_byte_stderr: float | None
    accuracy: float
    accuracy_stderr: float
    metric: str
    chance: float | None
    engine: str
    weights: str
    bos: bool
    truncated: int
    prompts: str
    compute: dict[str, str] = Field(default_factory=dict)


class ItemDetail(Record):
    """All that is known of one item, for whoever looks at single ones.

    Attributes:
        prompt: what all options have in common before them. prompt_hash: sha256 of the item's prompts and continuations.
        options: the continuations, or what differs between the options. generated: the answer's text, where it was generated.
        logprobs: log P(option | prompt) in nats. tokens, bytes: of each option (tokens of a generated answer, where they are known).
        metrics: the item's value by every metric of the task that is a number for an item.
        cut: whether a generated answer ended at its limit of tokens, with neither a stop sequence nor an end of text; `None` where nobody
            noted it.
    """

    prompt: str
    prompt_hash: str
    options: list[str]
    generated: str | None
    logprobs: list[float]
    tokens: list[int]
    bytes: list[int]
    metrics: dict[str, float]
    cut: bool | None = None


class ItemScores(Record):
    """Per-item results of one variant on one task, column by column, in the task's own order.

    Attributes:
        item: the task's identifier of each item, for pairing child and parent.
        bits_per_byte: of the gold continuation; NaN-free, `None` for tasks without one.
        correct: 1.0 or 0.0 (or the metric's value in [0, 1]) for each item.
        choice: index of the option chosen, -1 where there are no options.
        gold: index of the right option, -1 where there are no options.
        logprob: log P(gold continuation | prompt) in nats, whole; `None` for tasks without one. LAMBADA's loss a word is this.
        prompt_hash: sha256 of each item's prompts and continuations, to know that child and parent were asked the same; `None` where
            nobody noted it.
        details: of each item; `None` where scores were read to compare means only.
    """

    task: str
    item: list[str]
    bits_per_byte: list[float] | None
    correct: list[float]
    choice: list[int]
    gold: list[int]
    logprob: list[float] | None = None
    prompt_hash: list[str] | None = None
    details: list[ItemDetail] | None = None


class LostItem(Record):
    """An item that a variant answers worse than its parent, as both answered it.

    Attributes:
        prompt: its end, where it is long; `cut` says so. options: the continuations, none for generated answers.
        gold: index of the right option, -1 where there are no options.
        parent_choice, child_choice: index of the option chosen, -1 where there are no options.
        parent_logprobs, child_logprobs: of each option, in nats. parent_text, child_text: generated answers, their beginning.
        bits: by how many bits a byte the gold continuation became less likely; `None` where there is none.
        flipped: the parent had it right and the child has not.
    """

    task: str
    item: str
    prompt: str
    cut: bool
    options: list[str]
    gold: int
    parent_choice: int
    child_choice: int
    parent_logprobs: list[float]
    child_logprobs: list[float]
    parent_text: str | None = None
    child_text: str | None = None
    bits: float | None
    flipped: bool


class Timing(StoredRecord):
    """Measured inference time of a variant and of its parent, taken in turn in one run on one machine.

    Attributes:
        seconds: median wall time of one request (prefill and decode of the workload). parent_seconds: the parent's.
        prefill_seconds: the prefill's part of it.
        ratio: median over rounds of child time / parent time, with `low` and `high` its smallest and largest round.
        machine: what computed, in words. weights: which kernel ran, in words. compute: dtype and backend of the forward passes.
    """

    version: Literal[1] = 1
    machine: str
    batch: int
    prompt: int
    decode: int
    rounds: int
    seconds: float
    prefill_seconds: float
    parent_seconds: float | None
    ratio: float | None
    low: float | None
    high: float | None
    weights: str
    compute: dict[str, str] = Field(default_factory=dict)


class MachineSpeed(StoredRecord):
    """What this machine reaches: `bandwidth` in bytes per second, `flops` in operations per second of products in `dtype`."""

    version: Literal[1] = 1
    bandwidth: float
    flops: float
    threads: int
    device: str
    dtype: Dtype
