"""How differently a variant answers than its parent: changed answers, their direction, and divergences, from the stored answers alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compresslab.density.mcnemar import mcnemar
from compresslab.density.pairing import same_question
from compresslab.density.references.laws import Array
from compresslab.errors import RunFailed
from compresslab.records import Fidelity, GeneratedAnswers, ItemScores, Mean

WORDS = 4  # of the n-grams whose repetition is counted


class Answer(NamedTuple):
    """One stored answer.

    Attributes:
        gold, choice: index of the right and of the chosen option, -1 where there are no options.
        logprobs: log P(option | prompt) of each option in nats; empty for a generated answer. tokens: of each option, or of the generated
            answer; empty where nobody counted them. generated: the text, where it was generated.
    """

    gold: int
    choice: int
    correct: float
    logprobs: list[float]
    tokens: list[int]
    generated: str | None


def fidelity(parent: Mapping[str, ItemScores], child: Mapping[str, ItemScores], files: Mapping[str, tuple[Path, Path]]) -> list[Fidelity]:
    """The fidelity of a variant on each task whose items its parent was asked alike (`density.pairing.same_question`).

    The volume of change is reported beside its direction after Dutta et al. 2024, "Accuracy is Not All You Need" (arXiv 2407.09141), which
    calls changes of right and wrong flips. See `option_divergence`, `gold_difference` and `repetition` for the measures.

    Args:
        parent, child: items by task. files: paths of the parent's and the child's items, by task.

    Raises:
        RunFailed: a file holds no answers.
    """
    found = []
    for task, after in child.items():
        if task not in parent:
            continue
        pairs = _asked_alike(parent[task], after)
        if pairs:
            before_answers, after_answers = (read_answers(path) for path in files[task])
            answers = [(before_answers[place], after_answers[index]) for place, index in pairs]
            found.append(_compared(task, answers, len(after.item) - len(pairs)))
    return found


def _asked_alike(before: ItemScores, after: ItemScores) -> list[tuple[int, int]]:
    """The rows of the parent's and the child's items that are the same question."""
    places = {item: place for place, item in enumerate(before.item)}
    return [
        (place, index)
        for index, item in enumerate(after.item)
        if (place := places.get(item)) is not None and same_question(before, place, after, index)
    ]


def read_answers(path: Path) -> list[Answer]:
    """The answers of a file of `evaluation.scores.write_items`, without the prompts, in the file's order.

    Raises:
        RunFailed: the file holds no answers.
    """
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path, columns=list(Answer._fields)).to_pylist()
        return [Answer(**{**row, "logprobs": list(row["logprobs"]), "tokens": list(row["tokens"])}) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise RunFailed(f"{path} does not hold the items' answers: {problem}; delete it and evaluate again") from problem


def _compared(task: str, answers: Sequence[tuple[Answer, Answer]], left_out: int) -> Fidelity:
    correct = np.array([(before.correct, after.correct) for before, after in answers])
    flips = mcnemar(correct[:, 0], correct[:, 1])
    return Fidelity(
        task=task,
        items=len(answers),
        left_out=left_out,
        changed=_changed(answers),
        lost=flips.lost if flips else None,
        gained=flips.gained if flips else None,
        mcnemar=flips.p if flips else None,
        kl=option_divergence(answers),
        gold=gold_difference(answers),
        generated=_generated(answers),
    )


def _changed(answers: Sequence[tuple[Answer, Answer]]) -> float | None:
    """The share of answers that are not the parent's; `None` if some item has neither options nor a text."""
    if any(one.choice < 0 and one.generated is None for pair in answers for one in pair):
        return None
    return float(np.mean([(before.choice, before.generated) != (after.choice, after.generated) for before, after in answers]))


def option_divergence(answers: Sequence[tuple[Answer, Answer]]) -> Mean | None:
    """The mean over items of KL(parent || child) in nats, of the distributions over an item's options.

    Source: Kullback and Leibler 1951. A distribution is the softmax of the options' whole log-likelihoods, not divided by their lengths.
    Items without two options do not count; `None` if there are no others.
    """
    found = []
    for before, after in answers:
        if len(before.logprobs) == len(after.logprobs) > 1:
            p, q = _log_softmax(before.logprobs), _log_softmax(after.logprobs)
            found.append(max(float(np.exp(p) @ (p - q)), 0.0))  # rounding may make it less than 0
    if not found:
        return None
    return Mean(value=float(np.mean(found)), stderr=_stderr(np.array(found)), items=len(found))


def gold_difference(answers: Sequence[tuple[Answer, Answer]]) -> Mean | None:
    """The log-likelihood of the gold continuations, child minus parent, over the number of their tokens: nats a token.

    Where several options are right, the first of them counts. The standard error is that of a ratio of two sums over a sample of items
    (Cochran 1977, "Sampling Techniques", section 2.11). `None` without gold continuations, or if their tokens are unknown or not equal,
    as between two tokenizers.
    """
    found = []
    for before, after in answers:
        golds = [_gold(one) for one in (before, after)]
        if golds[0] is None or golds[1] is None or golds[0][1] != golds[1][1]:
            return None
        found.append((golds[1][0] - golds[0][0], golds[1][1]))
    changes, tokens = np.array(found).T
    if not tokens.sum():
        return None
    mean = float(changes.sum() / tokens.sum())
    error = _stderr(changes - mean * tokens)
    return Mean(value=mean, stderr=None if error is None else error / float(tokens.mean()), items=len(found))


def _gold(answer: Answer) -> tuple[float, int] | None:
    """Log-likelihood and tokens of the gold continuation, which is the only one where there are no options."""
    index = 0 if answer.choice < 0 and len(answer.logprobs) == 1 else answer.gold
    if not 0 <= index < len(answer.logprobs) == len(answer.tokens):
        return None
    return answer.logprobs[index], answer.tokens[index]


def _generated(answers: Sequence[tuple[Answer, Answer]]) -> GeneratedAnswers | None:
    """The texts of both; `None` if some item has none."""
    texts = [
        (before.generated, after.generated) for before, after in answers if before.generated is not None and after.generated is not None
    ]
    if len(texts) < len(answers):
        return None
    parent_texts, child_texts = zip(*texts, strict=True)
    parent_answers, child_answers = zip(*answers, strict=True)
    return GeneratedAnswers(
        common=float(np.mean([len(os.path.commonprefix(pair)) for pair in texts])),  # noqa: RUF071 - of texts, not of paths
        length=float(np.mean([len(text) for text in child_texts])),
        parent_length=float(np.mean([len(text) for text in parent_texts])),
        tokens=_mean_tokens(child_answers),
        parent_tokens=_mean_tokens(parent_answers),
        repetition=_mean_repetition(child_texts),
        parent_repetition=_mean_repetition(parent_texts),
    )


def _mean_tokens(answers: Sequence[Answer]) -> float | None:
    return float(np.mean([one.tokens[0] for one in answers])) if all(one.tokens for one in answers) else None


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


def _log_softmax(logprobs: Sequence[float]) -> Array:
    values: Array = np.asarray(logprobs, dtype=np.float64)
    largest = float(values.max())
    return values - (largest + math.log(float(np.exp(values - largest).sum())))


def _stderr(values: Array) -> float | None:
    """Standard error of a mean; `None` for a single value."""
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
