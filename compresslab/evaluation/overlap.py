"""Overlap of benchmark items with a text: which items share word n-grams with what a model was trained or calibrated on.

The convention is that of Brown et al. 2020 (arXiv 2005.14165, appendix C): an item overlaps if it shares `LONG` (13) consecutive words with
the text, in lower case and without punctuation. `SHORT` (8) words is their lower limit; it also finds common phrases. An item of fewer
words overlaps if the text holds the whole of it: the question and the right answer.

The n-grams of the items are kept, not those of the text, which is read once, piece by piece. Memory grows with the benchmarks (about 12
bytes an n-gram and length), not with the text.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONG, SHORT = 13, 8
"""Lengths of the n-grams, in words."""

FEWEST_WORDS = 5
"""An item of fewer words (question and right answer) is in many texts by chance, so nothing is said of it."""

PIECE = 1_000_000  # characters of a document that are in memory as words at a time

# Scripts without spaces between words: there, each character counts as a word (Thai, kana, CJK ideographs).
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
# "Question:" at the start of a question, "\nAnswer:" at its end.
_QUESTION_LABEL = re.compile(r"[^\n:]{0,30}:")
_ANSWER_LABEL = re.compile(r"\n[^\n:]{0,30}:\s*\Z")
_PREFILTER_BITS = 22

Hashes = NDArray[np.uint64]
WordIds = NDArray[np.int64]


class ItemText(NamedTuple):
    """The text of one item.

    Attributes:
        item: the task's identifier. Items of one subject have identifiers with the same part before "/".
        prompt: the prompt with its examples. options: the continuations; empty for generated answers, whose right answer is not stored.
        gold: index of the right option; -1 if all of them, or none, are right.
    """

    item: str
    prompt: str
    options: Sequence[str]
    gold: int


class TaskRows(NamedTuple):
    """Row numbers of a task's items: those that share `LONG` and `SHORT` words with the text, and those of fewer than `FEWEST_WORDS`."""

    long: list[int]
    short: list[int]
    too_few_words: list[int]


def words(text: str) -> list[str]:
    """The words of a text as they are compared: Unicode form NFKC, lower case (case folding), without punctuation and underscores."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def questions(items: Sequence[ItemText]) -> list[str]:
    """The prompt of each item without what precedes its question: examples, instructions, and the label of the question.

    What all prompts of a task (of a subject, if items have subjects) begin with is no part of a question. If each prompt has its own
    examples, the question is the last block that begins with the label of the first ("Question:"). Examples without labels that differ
    from prompt to prompt cannot be told from the question and count as part of it.
    """
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(_subject(item), []).append(item.prompt)
    starts = {subject: _shared_start(prompts) for subject, prompts in groups.items()}
    return [_question(item.prompt, *starts[_subject(item)]) for item in items]


def overlapping(tasks: Mapping[str, Sequence[ItemText]], documents: Iterable[str]) -> dict[str, TaskRows]:
    """The items of each task that overlap with a text. N-grams do not reach from one document into the next."""
    index = _Index(tasks)
    for document in documents:
        index.read(document)
    return index.rows()


class _Index:
    """The n-grams of all items as sorted hashes by length, and which of them the text has had so far.

    Hashes have 64 bits. Each word has a pseudorandom value, words that no item has the value 0, so different n-grams have equal hashes with
    a probability of 2^-64.
    """

    def __init__(self, tasks: Mapping[str, Sequence[ItemText]]) -> None:
        self._vocabulary: dict[str, int] = {}
        self._sizes = {task: len(items) for task, items in tasks.items()}
        # By length of the n-grams: word sequences, each with the number of its item and 0 if its n-grams stand for LONG, 1 for SHORT.
        found: dict[int, list[tuple[WordIds, int, int]]] = {}
        self._too_few: set[int] = set()
        number = 0
        for items in tasks.values():
            for item, question in zip(items, questions(items), strict=True):
                self._add(found, number, item, question)
                number += 1
        self._values = _word_values(len(self._vocabulary) + 1)
        self._grams: dict[int, tuple[Hashes, NDArray[np.int32], NDArray[np.int8]]] = {}
        for length, parts in found.items():
            sizes = [len(ids) for ids, _, _ in parts]
            inside = _inside(sizes, length)
            hashes = next(_window_hashes(self._values[np.concatenate([ids for ids, _, _ in parts])], [length]))[1]
            owners = np.repeat(np.array([owner for _, owner, _ in parts], dtype=np.int32), sizes)
            kinds = np.repeat(np.array([kind for _, _, kind in parts], dtype=np.int8), sizes)
            self._grams[length] = hashes[inside[: len(hashes)]], owners[inside], kinds[inside]
        self._sorted = {length: np.unique(hashes) for length, (hashes, _, _) in self._grams.items()}
        self._seen = {length: np.zeros(len(hashes), dtype=bool) for length, hashes in self._sorted.items()}
        self._prefilters = {length: _prefilter(hashes) for length, hashes in self._sorted.items()}

    def _add(self, found: dict[int, list[tuple[WordIds, int, int]]], number: int, item: ItemText, question: str) -> None:
        """Add the n-grams of an item: of the question with each option, and of the whole item where that is shorter than an n-gram."""
        bare = self._ids(_ANSWER_LABEL.sub("", question))
        asked = self._ids(question)
        options = [self._ids(option) for option in item.options] or [np.zeros(0, dtype=np.int64)]
        right = options if item.gold < 0 else [options[item.gold]]
        wholes = [np.concatenate([asked_or_bare, option]) for option in right for asked_or_bare in (asked, bare)]
        if len(bare) + max(map(len, right)) < FEWEST_WORDS:
            self._too_few.add(number)
            return
        for kind, length in enumerate((LONG, SHORT)):
            # Of an option, only the n-grams that reach into it are new.
            sequences = [asked, *(np.concatenate([start[-length + 1 :], option]) for option in options for start in (asked, bare))]
            for ids in sequences:
                if len(ids) >= length:
                    found.setdefault(length, []).append((ids, number, kind))
            for ids in wholes:
                if FEWEST_WORDS <= len(ids) < length:
                    found.setdefault(len(ids), []).append((ids, number, kind))

    def _ids(self, text: str) -> WordIds:
        vocabulary = self._vocabulary
        return np.array([vocabulary.setdefault(word, len(vocabulary) + 1) for word in words(text)], dtype=np.int64)

    def read(self, document: str) -> None:
        """Note which n-grams a document has."""
        if not self._grams:
            return
        lengths = sorted(self._grams)
        before: Hashes = np.zeros(0, dtype=np.uint64)
        for piece in _pieces(document):
            found = words(piece)
            ids = np.fromiter(map(self._vocabulary.get, found, repeat(0)), dtype=np.int64, count=len(found))
            values = np.concatenate([before, self._values[ids]])
            for length, hashes in _window_hashes(values, lengths):
                candidates = hashes[self._prefilters[length][hashes >> np.uint64(64 - _PREFILTER_BITS)]]
                known = self._sorted[length]
                places = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
                self._seen[length][places[known[places] == candidates]] = True
            before = values[-(lengths[-1] - 1) :]

    def rows(self) -> dict[str, TaskRows]:
        """The rows of the items that overlap, by task."""
        hits: tuple[set[int], set[int]] = (set(), set())
        for length, (hashes, owners, kinds) in self._grams.items():
            shared = self._seen[length][np.searchsorted(self._sorted[length], hashes)]
            for kind, items in enumerate(hits):
                items.update(np.unique(owners[shared & (kinds == kind)]).tolist())
        result, first = {}, 0
        for task, size in self._sizes.items():
            numbers = range(first, first + size)
            by_kind = [[number - first for number in numbers if number in items] for items in (*hits, self._too_few)]
            result[task] = TaskRows(*by_kind)
            first += size
        return result


def _subject(item: ItemText) -> str:
    subject, slash, _ = item.item.partition("/")
    return subject if slash else ""


def _shared_start(prompts: Sequence[str]) -> tuple[int, str]:
    """Where the question begins in prompts that begin alike, and its label ("Question:"), with which each of its examples begins, too."""
    shared = os.path.commonprefix(prompts)  # noqa: RUF071 - of strings, not of paths
    block = shared.rfind("\n\n") + 2 if "\n\n" in shared else 0
    label = _QUESTION_LABEL.match(shared, block)
    return block, label.group() if label else ""


def _question(prompt: str, start: int, label: str) -> str:
    if not label:
        return prompt[start:]
    last = prompt.rfind(f"\n\n{label}", start)
    return prompt[(start if last < 0 else last + 2) + len(label) :]


def _pieces(document: str) -> Iterator[str]:
    """A document in pieces of about `PIECE` characters that end at a space or a line's end, if there is one."""
    start = 0
    while start < len(document):
        end = start + PIECE
        if end < len(document):
            end = max(document.rfind(" ", start, end), document.rfind("\n", start, end)) + 1 or end
        yield document[start:end]
        start = end


def _word_values(count: int) -> Hashes:
    """(count,) a pseudorandom value of each word's number, 0 for the number 0: the finalizer of SplitMix64."""
    with np.errstate(over="ignore"):
        mixed = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _window_hashes(values: Hashes, lengths: Sequence[int]) -> Iterator[tuple[int, Hashes]]:
    """Polynomial hashes (modulo 2^64) of all windows of the word values, for each of the rising `lengths`."""
    hashes: Hashes = np.zeros(len(values) + 1, dtype=np.uint64)
    for length in range(1, lengths[-1] + 1):
        hashes = hashes[: max(len(values) - length + 1, 0)]
        if not len(hashes):
            return
        hashes = hashes * np.uint64(0xD6E8FEB86659FD93) + values[length - 1 :]
        if length in lengths:
            yield length, hashes


def _inside(sizes: Sequence[int], length: int) -> NDArray[np.bool_]:
    """Of sequences that are joined: whether the window that begins at each word lies within one sequence."""
    ends = np.repeat(np.cumsum(sizes), sizes)
    return np.asarray(np.arange(len(ends)) + length <= ends)


def _prefilter(hashes: Hashes) -> NDArray[np.bool_]:
    """Which values the highest bits of the hashes have: most n-grams of a text are ruled out by this table alone."""
    table = np.zeros(1 << _PREFILTER_BITS, dtype=bool)
    table[hashes >> np.uint64(64 - _PREFILTER_BITS)] = True
    return table
