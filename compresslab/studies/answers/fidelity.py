"""How differently a variant answers than its parent: changed answers, their direction, and divergences, from the stored answers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compresslab.density.mcnemar import mcnemar
from compresslab.density.pairing import pairs
from compresslab.density.references.laws import Array
from compresslab.records import Fidelity, GeneratedAnswers, ItemScores, Mean
from compresslab.studies.answers.stored import Answers, Read, Rows, read_answers

WORDS = 4  # of the n-grams whose repetition is counted


@dataclass(frozen=True, eq=False)
class Side:
    """The items of one of two models that both were asked alike, in the same order.

    Attributes:
        gold, choice: (items,) index of the right and of the chosen option, -1 where there are no options. correct: (items,).
        answers: of all items of the task. rows: (items,) their rows in it.
    """

    gold: Rows
    choice: Rows
    correct: Array
    answers: Answers
    rows: Rows

    @property
    def texts(self) -> list[str | None]:
        """The generated text of each item; `None` where there is none."""
        generated = self.answers.generated
        return [None] * len(self.rows) if generated is None else [generated[row] for row in self.rows.tolist()]


def side(items: ItemScores, answers: Answers, rows: Sequence[int]) -> Side:
    """Some items of a task, with the answers to all of its items."""
    own = np.asarray(rows, dtype=np.int64)
    gold, choice = np.asarray(items.gold, dtype=np.int64)[own], np.asarray(items.choice, dtype=np.int64)[own]
    return Side(gold, choice, np.asarray(items.correct, dtype=np.float64)[own], answers, own)


def fidelity(
    parent: Mapping[str, ItemScores],
    child: Mapping[str, ItemScores],
    files: Mapping[str, tuple[Path, Path]],
    read: Read = read_answers,
) -> list[Fidelity]:
    """The fidelity of a variant on each task whose items its parent was asked alike (`density.pairing.same_question`).

    The volume of change is reported beside its direction after Dutta et al. 2024, "Accuracy is Not All You Need" (arXiv 2407.09141), which
    calls changes of right and wrong flips. See `option_divergence`, `gold_difference` and `repetition` for the measures. A figure is
    missing where a file does not hold what it needs.

    Args:
        parent, child: items by task. files: paths of the parent's and the child's items, by task.
        read: reads a file, or gives what was read of it before.
    """
    found = []
    for task, after in child.items():
        if task in parent and (asked_alike := pairs(parent[task], after)):
            both = (parent[task], after)
            before_side, after_side = (
                side(items, read(path), rows) for items, path, rows in zip(both, files[task], zip(*asked_alike, strict=True), strict=True)
            )
            found.append(_compared(task, before_side, after_side, len(after.item) - len(asked_alike)))
    return found


def _compared(task: str, before: Side, after: Side, left_out: int) -> Fidelity:
    flips = mcnemar(before.correct, after.correct)
    return Fidelity(
        task=task,
        items=len(after.rows),
        left_out=left_out,
        changed=share_changed(before, after),
        lost=flips.lost if flips else None,
        gained=flips.gained if flips else None,
        mcnemar=flips.p if flips else None,
        kl=option_divergence(before, after),
        gold=gold_difference(before, after),
        generated=_generated(before, after),
    )


def share_changed(before: Side, after: Side) -> float | None:
    """The share of answers that differ; `None` if some item has neither options nor a text."""
    sides = [list(zip(one.choice.tolist(), one.texts, strict=True)) for one in (before, after)]
    if any(choice < 0 and text is None for answers in sides for choice, text in answers):
        return None
    return float(np.mean([one != other for one, other in zip(*sides, strict=True)]))


def option_divergence(before: Side, after: Side) -> Mean | None:
    """The mean over items of KL(before || after) in nats, of the distributions over an item's options.

    Source: Kullback and Leibler 1951. A distribution is the softmax of the options' whole log-likelihoods, not divided by their lengths.
    Items without two options do not count; `None` if there are no others.
    """
    if before.answers.logprobs is None or after.answers.logprobs is None:
        return None
    sides = [(one.answers.logprobs, one.rows) for one in (before, after)]
    widths = [logprobs.lengths[rows] for logprobs, rows in sides if logprobs is not None]
    found = np.full(len(before.rows), np.nan)
    for width in np.unique(widths[0][(widths[0] == widths[1]) & (widths[0] > 1)]).tolist():
        own = (widths[0] == width) & (widths[1] == width)
        p, q = (_log_softmax(logprobs.table(rows[own], width)) for logprobs, rows in sides if logprobs is not None)
        found[own] = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)  # rounding may make it less than 0
    found = found[~np.isnan(found)]
    return Mean(value=float(np.mean(found)), stderr=_stderr(found), items=len(found)) if len(found) else None


def gold_difference(before: Side, after: Side) -> Mean | None:
    """The log-likelihood of the gold continuations, after minus before, over the number of their tokens: nats a token.

    Where several options are right, the first of them counts. The standard error is that of a ratio of two sums over a sample of items
    (Cochran 1977, "Sampling Techniques", section 2.11). `None` without gold continuations, or if their tokens are unknown or not equal,
    as between two tokenizers.
    """
    golds = [_gold(one) for one in (before, after)]
    if golds[0] is None or golds[1] is None or not np.array_equal(golds[0][1], golds[1][1]):
        return None
    changes, tokens = golds[1][0] - golds[0][0], golds[1][1]
    if not tokens.sum():
        return None
    mean = float(changes.sum() / tokens.sum())
    error = _stderr(changes - mean * tokens)
    return Mean(value=mean, stderr=None if error is None else error / float(tokens.mean()), items=len(changes))


def _gold(one: Side) -> tuple[Array, Array] | None:
    """(items,) log-likelihood and tokens of the gold continuation, which is the only one where there are no options."""
    logprobs, tokens = one.answers.logprobs, one.answers.tokens
    if logprobs is None or tokens is None:
        return None
    options = logprobs.lengths[one.rows]
    gold = np.where((one.choice < 0) & (options == 1), 0, one.gold)
    if not np.all((gold >= 0) & (gold < options) & (options == tokens.lengths[one.rows])):
        return None
    return logprobs.at(one.rows, gold), tokens.at(one.rows, gold)


def _generated(before: Side, after: Side) -> GeneratedAnswers | None:
    """The texts of both; `None` if some item has none."""
    texts = [(one, other) for one, other in zip(before.texts, after.texts, strict=True) if one is not None and other is not None]
    if len(texts) < len(after.rows):
        return None
    parent_texts, child_texts = zip(*texts, strict=True)
    return GeneratedAnswers(
        common=float(np.mean([len(os.path.commonprefix(pair)) for pair in texts])),  # noqa: RUF071 - of texts, not of paths
        length=float(np.mean([len(text) for text in child_texts])),
        parent_length=float(np.mean([len(text) for text in parent_texts])),
        tokens=_mean_tokens(after),
        parent_tokens=_mean_tokens(before),
        repetition=_mean_repetition(child_texts),
        parent_repetition=_mean_repetition(parent_texts),
        cut=_share_cut(after),
        parent_cut=_share_cut(before),
    )


def _mean_tokens(one: Side) -> float | None:
    tokens = one.answers.tokens
    if tokens is None or not np.all(tokens.lengths[one.rows]):
        return None
    return float(tokens.at(one.rows, np.zeros_like(one.rows)).mean())


def _share_cut(one: Side) -> float | None:
    if one.answers.cut is None or np.isnan(one.answers.cut[one.rows]).any():
        return None
    return float(one.answers.cut[one.rows].mean())


def _mean_repetition(texts: Sequence[str]) -> float | None:
    found = [share for share in map(repetition, texts) if share is not None]
    return float(np.mean(found)) if found else None


def repetition(text: str) -> float | None:
    """The share of 4-grams of words that occurred before in the text: 1 - distinct 4-grams / 4-grams. `None` for less than four words.

    Source: seq-rep-4 of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training" (arXiv 1908.04319), there of tokens. Words
    are what white space separates, so that models with different tokenizers compare.
    """
    words = text.split()
    grams = [tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _log_softmax(logprobs: Array) -> Array:
    """(items, options) logarithms of the softmax over options."""
    values = logprobs - logprobs.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))


def _stderr(values: Array) -> float | None:
    """Standard error of a mean; `None` for a single value."""
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
