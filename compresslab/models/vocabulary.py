"""Whether two models read and predict the same tokens."""

from __future__ import annotations

from compresslab.models.load import Loaded


def vocabulary_difference(one: Loaded, other: Loaded) -> str:
    """How the vocabulary of `other` differs from that of `one`, with the first token that differs; empty if it does not."""
    ours, theirs = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if ours == theirs:
        return ""
    token, number = min(set(ours.items()) ^ set(theirs.items()), key=lambda entry: (entry[1], entry[0]))
    return f"{len(theirs)} tokens against {len(ours)}; token {number}, {token!r}, is not in both"
