"""How differently a variant answers than its parent, beside how well."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compresslab.records.base import Record, StoredRecord


class Mean(Record):
    """A mean over items, or over the sequences of a text.

    Attributes:
        stderr: its standard error; `None` for a single item, which has none. items: number of items or sequences.
    """

    value: float
    stderr: float | None
    items: int


class GeneratedAnswers(Record):
    """The generated answers of a variant beside those of its parent.

    Attributes:
        common: mean number of characters that both answers begin with.
        length, parent_length: mean number of characters of an answer.
        tokens, parent_tokens: mean number of tokens of an answer; `None` where the engine did not count them.
        repetition, parent_repetition: mean share of repeated 4-grams of words (seq-rep-4) over the answers of four words and more; `None`
            without such an answer.
        cut, parent_cut: share of answers that ended at their limit of tokens; `None` where nobody noted how they ended.
    """

    common: float
    length: float
    parent_length: float
    tokens: float | None
    parent_tokens: float | None
    repetition: float | None
    parent_repetition: float | None
    cut: float | None = None
    parent_cut: float | None = None


class Fidelity(Record):
    """How far a variant's answers on one task are those of its parent.

    Attributes:
        items: those that both were asked alike. left_out: further items of the variant, which the parent was not asked, or not alike.
        changed: share of the items with another answer (another option chosen, another text generated); `None` where the answer itself is
            not stored, as for a single log-likelihood.
        lost, gained: items that were right and are wrong, that were wrong and are right; `None` where the metric is no right or wrong.
        mcnemar: two-sided p of McNemar's exact test of these two.
        kl: KL(parent || variant) of the distributions over an item's options, in nats an item; `None` without options.
        gold: log-likelihood of the gold continuation, variant minus parent, in nats a token, over all tokens of these continuations;
            `None` where there is none, or where the two count its tokens differently.
        generated: of generated answers; `None` for other tasks.
    """

    task: str
    items: int
    left_out: int
    changed: float | None
    lost: int | None
    gained: int | None
    mcnemar: float | None
    kl: Mean | None
    gold: Mean | None
    generated: GeneratedAnswers | None = None


class TextDivergence(StoredRecord):
    """How far a variant's next-token distributions on a text are from its parent's.

    Attributes:
        source: of the text, as the recipe names it. sha256: of the documents that were read. length: tokens of a sequence.
        documents, bos: how they were put into sequences, as the recipe names it; empty in records from before that was kept.
        kl: KL(parent || variant) over the whole vocabulary, in nats a token. Its standard error is over sequences.
        agreement: share of the tokens at which both find the same next token most likely.
        top_k: by the number of a teacher's largest logits that the study stores, what these and the mass of all other tokens tell of
            `kl`, in nats a token. It is a lower bound.
        weights, parent_weights: "as stored" or "dequantized", of each model. compute: dtype and backend of the forward passes.
    """

    version: Literal[1, 2, 3] = 3
    source: str
    sha256: str
    length: int
    documents: str = ""
    bos: str = ""
    kl: Mean
    agreement: float
    top_k: dict[int, float] = Field(default_factory=dict)
    weights: str
    parent_weights: str
    compute: dict[str, str] = Field(default_factory=dict)
