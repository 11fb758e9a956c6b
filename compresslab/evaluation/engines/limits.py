"""Checks that requests fit a model's context. Requests without an answer are refused, those that must be truncated are returned."""

from __future__ import annotations

from collections.abc import Sequence

from compresslab.errors import RunFailed

LmEvalRequest = tuple[tuple[str, str] | None, Sequence[int], Sequence[int]]
"""A (context, continuation) pair, `None` for a window of a long text; the context's token ids; the continuation's."""


def too_long(requests: Sequence[LmEvalRequest], context: int) -> set[tuple[str, str]]:
    """The pairs whose prompts must be truncated to fit a context of `context` tokens. The last token is scored and not read.

    Raises:
        RunFailed: a continuation has no tokens, or is longer than the context.
    """
    empty = [pair for pair, _, tail in requests if not tail]
    if empty:
        raise RunFailed(f"{len(empty)} of {len(requests)} continuations have no token of their own; the first is {_shown(empty[0])}")
    long = [pair for pair, _, tail in requests if len(tail) > context]
    if long:
        limit = f"the model's context of {context} tokens"
        raise RunFailed(f"{len(long)} of {len(requests)} continuations are longer than {limit}; the first is {_shown(long[0])}")
    return {pair for pair, head, tail in requests if pair is not None and len(head) + len(tail) > context + 1}


def refuse(pairs: set[tuple[str, str]], context: int) -> None:
    """Refuse requests that do not fit the context and must not be truncated.

    Raises:
        RunFailed: there are any.
    """
    if pairs:
        first = min(pairs)
        raise RunFailed(
            f"{len(pairs)} requests do not fit the model's context of {context} tokens; the first begins {first[0][:60]!r} and "
            f"asks for {first[1][:60]!r}. Take fewer examples, another task, or evaluate.truncate: true, which cuts them from the left"
        )


def _shown(pair: tuple[str, str] | None) -> str:
    return "a window of a long text" if pair is None else repr(pair[1])
