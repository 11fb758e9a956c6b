"""Compares every text that a study's steps read with every item that its variants are judged by.

The documents that a step read are known by the digest in its record: the source is read again in the recipe's order until its digest is
that one. So exactly the documents are compared that were read, and a text that has changed since is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from compresslab.errors import BadInput
from compresslab.evaluation.overlap import LONG, ItemText, TaskRows, overlapping
from compresslab.evaluation.scores import read_details
from compresslab.methods.registry import method_of
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.plan.keys import cached, code_version
from compresslab.recipe.source import for_role
from compresslab.records import ItemScores, StepRecord, TaskOverlap, TaskScore, TextOverlap
from compresslab.store.store import Store

CACHE = "overlaps"


@dataclass
class ReadText:
    """A text that steps read, and the variants that depend on it. `sha256` is that of the documents."""

    role: Literal["calibration", "training"]
    source: str
    seed: int
    sha256: str
    variants: list[str] = field(default_factory=list)


def text_overlaps(plan: Plan, store: Store, answered: Mapping[str, Mapping[str, ItemScores]]) -> list[TextOverlap]:
    """Every text behind the variants that were scored, with the items that overlap with it. The user's cache keeps what was found.

    Args:
        answered: the items of the variants that were scored, by task.

    Raises:
        RunFailed: a file of per-item results holds no prompts.
    """
    texts: dict[tuple[str, str], ReadText] = {}
    for name in answered:
        for text in _texts_behind(plan.variant(name), plan, store):
            texts.setdefault((text.role, text.sha256), text).variants.append(name)
    if not texts:
        return []
    # All variants of a study answer the same items; comparisons leave out a task where they do not.
    first, items = next(iter(answered.items()))
    return [compared(text, items, plan.node(plan.variant(first).evaluate).tasks, store) for text in texts.values()]


def caveats(overlaps: Sequence[TextOverlap]) -> Iterator[str]:
    """One caveat a text in which there are items, for the head of the page."""
    for text in overlaps:
        if found := [f"{len(task.words_13):,} of {task.items:,} items of {task.task}" for task in text.tasks if task.words_13]:
            yield (
                f"Items of the tasks are in the {text.role} text {text.source} ({', '.join(found)} share {LONG} words with it). "
                f'Without them: row "overlap" of the robustness tables.'
            )


def _texts_behind(variant: PlanVariant, plan: Plan, store: Store) -> Iterator[ReadText]:
    """The texts that the steps before a variant read, those of its teachers included."""
    waiting, met = [variant.model], set[str]()
    while waiting:
        key = waiting.pop()
        if key in met:
            continue
        met.add(key)
        node = plan.node(key)
        waiting += node.needs
        if node.step is None or (role := method_of(*node.step).text) is None:
            continue
        record = store.find(key, StepRecord)
        if record is not None and (sha256 := record.data.get("text")):
            config = plan.recipe.text.calibration if role == "calibration" else plan.recipe.text.training
            yield ReadText(role, for_role(config.source, role), config.seed + node.replicate, sha256)


def compared(text: ReadText, items: Mapping[str, ItemScores], keys: Mapping[str, str], store: Store) -> TextOverlap:
    """The overlap of a text with the items of tasks whose scores have the `keys`."""
    found = TextOverlap(role=text.role, source=text.source, sha256=text.sha256, variants=list(dict.fromkeys(text.variants)))
    if text.source.startswith("hub:"):
        return found.model_copy(update={"reason": "it was streamed from the hub, and this machine does not keep it"})
    asked = {task: (store.read(keys[task], TaskScore).prompts, scores.gold) for task, scores in items.items()}
    name = json.dumps([text.sha256, asked, code_version("compresslab.evaluation.overlap")], sort_keys=True)

    def search() -> str:
        texts = {task: _item_texts(scores, store.folder(keys[task]) / "items.parquet") for task, scores in items.items()}
        return json.dumps(overlapping(texts, documents_read(text.source, text.seed, text.sha256)))

    try:
        rows = {task: TaskRows(*lists) for task, lists in json.loads(cached(CACHE, name, search)).items()}
    except BadInput as error:
        return found.model_copy(update={"reason": str(error)})
    return found.model_copy(update={"tasks": [_task_overlap(scores, rows[task]) for task, scores in items.items()]})


def _task_overlap(scores: ItemScores, rows: TaskRows) -> TaskOverlap:
    long, short, too_few_words = ([scores.item[row] for row in numbers] for numbers in rows)
    return TaskOverlap(task=scores.task, items=len(scores.item), words_13=long, words_8=short, too_few_words=too_few_words)


def _item_texts(scores: ItemScores, path: Path) -> list[ItemText]:
    details = read_details(path, range(len(scores.item)))
    return [
        # A continuation alone is the right answer (LAMBADA).
        ItemText(item, detail.prompt, detail.options, gold if gold >= 0 or len(detail.options) != 1 else 0)
        for item, gold, detail in zip(scores.item, scores.gold, details, strict=True)
    ]


def documents_read(source: str, seed: int, sha256: str) -> Iterator[str]:
    """The documents of a source, in the order of `seed`, up to the one at which their digest is `sha256`.

    Raises:
        BadInput: the source is not readable any more, or holds other documents.
    """
    # Imports torch, which takes seconds; a study whose overlaps are in the cache does not wait for it.
    from compresslab.models.text import documents

    digest = hashlib.sha256()
    for document in documents(source, seed):
        digest.update(document.encode() + b"\0")
        yield document
        if digest.hexdigest() == sha256:
            return
    raise BadInput(f"{source} does not hold the documents any more that the steps read")
