"""Packs documents into sequences of equal length: which token ends a document, which one starts it, and which document each token is of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

Bos = Literal["auto", "always", "never"]

# Tokens with which models were trained to end a document, by the names that their tokenizers give them. A chat model's end-of-sequence
# token ends a turn (`<|im_end|>`, `<|eot_id|>`), and its tokenizer keeps the one that ends a document.
END_OF_TEXT = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<EOS_TOKEN>",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
)
# A beginning-of-sequence token that begins a turn of a chat, and no document.
START_OF_TURN = "<|im_start|>"


def end_of_document(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends a document: the first of `END_OF_TEXT` that the tokenizer has as a special token, else the end-of-sequence token.

    An end-of-sequence token that is itself in `END_OF_TEXT` is taken as it is. `None` if the tokenizer has neither.
    """
    own: int | None = tokenizer.eos_token_id
    if tokenizer.eos_token in END_OF_TEXT:
        return own
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    known = next((token for token in END_OF_TEXT if token in special), None)
    return own if known is None else int(tokenizer.convert_tokens_to_ids(known))


def start_of_document(tokenizer: PreTrainedTokenizerBase, bos: Bos) -> list[int]:
    """The tokens before a document: none or one.

    Args:
        bos: `auto` for what the tokenizer itself puts before a text. `always` for its beginning-of-sequence token; where it has none, or
            one that begins a turn of a chat, for the token that ends a document, which stood before each document in training. `never` for
            none.
    """
    if bos == "never":
        return []
    if bos == "auto":
        plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        before = next((place for place in range(len(whole)) if whole[place : place + len(plain)] == plain), 0)
        return list(whole[:before])
    token = tokenizer.bos_token_id if tokenizer.bos_token != START_OF_TURN else None
    token = end_of_document(tokenizer) if token is None else token
    return [] if token is None else [token]


class Packer:
    """Sequences of `length` tokens that documents fill one after the other. A document that does not fit goes on in the next sequence.

    Each piece of a document begins with the tokens `start`: where a sequence begins in the middle of a document, too, since a model that
    expects such a token there reads no sequence well without it. Each document ends with the token `end`.
    """

    def __init__(self, length: int, start: list[int], end: int | None) -> None:
        self.length, self.start = length, start
        self.end = [] if end is None else [end]
        self.tokens = 0
        self._ids: list[int] = []
        self._documents: list[int] = []
        self._added = 0

    def add(self, ids: list[int]) -> None:
        """Add a document's tokens."""
        rest = ids + self.end
        while rest:
            room = self.length - self.tokens % self.length
            piece = (self.start + rest)[:room]
            rest = rest[max(0, len(piece) - len(self.start)) :]
            self._ids += piece
            self._documents += [self._added] * len(piece)
            self.tokens += len(piece)
        self._added += 1

    def sequences(self, count: int) -> tuple[Tensor, Tensor]:
        """The ids of the first `count` sequences, and the number of the document that each token is of, both (count, length)."""
        kept = slice(count * self.length)
        return tuple(torch.tensor(values[kept]).view(count, self.length) for values in (self._ids, self._documents))  # type: ignore[return-value]


def positions_in_documents(documents: Tensor) -> Tensor:
    """The position (sequences, length) of each token in its piece of a document, from the numbers of the documents (sequences, length)."""
    places = torch.arange(documents.shape[1]).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values
