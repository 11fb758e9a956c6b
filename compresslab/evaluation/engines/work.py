"""The requests and answers of engines, and the type that all engines have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from transformers import PreTrainedModel

from compresslab.evaluation.engines.journal import Journal
from compresslab.evaluation.engines.trie import Trie, build

LogLikelihood = tuple[float, bool]
"""Sum of the log-probabilities of a continuation's tokens in nats, and whether greedy decoding generates this continuation."""


class LogLikelihoodRequest(NamedTuple):
    """Token ids of a context and of the continuation to score, at least one each."""

    context: Sequence[int]
    continuation: Sequence[int]

    @property
    def input_ids(self) -> list[int]:
        """The tokens that the model reads. The last token of the continuation is only scored, as in lm-eval."""
        return [*self.context, *self.continuation][:-1]

    @property
    def length(self) -> int:
        """Number of tokens that the model reads."""
        return len(self.context) + len(self.continuation) - 1

    def cut(self, max_length: int) -> LogLikelihoodRequest:
        """The request with its context truncated from the left to fit. Continuations have at most `max_length` tokens."""
        excess = max(0, self.length - max_length)
        return self._replace(context=self.context[excess:]) if excess else self


@dataclass(frozen=True)
class LogLikelihoodWork:
    """Log-likelihoods to compute. The requests of an engine fit the model's context."""

    requests: Sequence[LogLikelihoodRequest]

    @cached_property
    def trie(self) -> Trie:
        """All requests as one trie."""
        return build((request.input_ids for request in self.requests), [request.continuation for request in self.requests])

    @property
    def tokens(self) -> int:
        """Number of tokens to read without shared prefixes."""
        return sum(request.length for request in self.requests)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest sequence."""
        return max((request.length for request in self.requests), default=0)

    def content(self) -> Iterator[bytes]:
        """The data that decide the answers, which identify the journal."""
        for part in (part for request in self.requests for part in request):
            yield np.asarray(part, dtype=np.int64).tobytes()


class Prompt(NamedTuple):
    """A prompt to continue.

    Attributes:
        input_ids: at least one token.
        stop_reached: called after each new token with all new tokens; returns whether the answer is complete.
        stop_sequences: the strings that end an answer.
        other_settings: other generation settings of the task, by transformers' names.
    """

    input_ids: list[int]
    max_new_tokens: int
    stop_reached: Callable[[list[int]], bool]
    stop_sequences: list[str]
    other_settings: Mapping[str, object] = {}


@dataclass(frozen=True)
class GenerationWork:
    """Prompts to continue by greedy decoding."""

    prompts: Sequence[Prompt]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest sequence, including its maximum of new tokens."""
        return max((len(prompt.input_ids) + prompt.max_new_tokens for prompt in self.prompts), default=0)

    def content(self) -> Iterator[bytes]:
        """The data that decide the answers, which identify the journal."""
        for prompt in self.prompts:
            yield json.dumps([prompt.input_ids, prompt.max_new_tokens, prompt.stop_sequences]).encode()


Work = TypeVar("Work", LogLikelihoodWork, GenerationWork, contravariant=True)
Answer = TypeVar("Answer")


class Engine(Protocol[Work, Answer]):
    """The type of all engines, which are functions that compute answers."""

    def __call__(
        self, model: PreTrainedModel, work: Work, budget: int, progress: Callable[[float], None], journal: Journal, /
    ) -> list[Answer]:
        """The answers in the order of the requests. The numbers do not depend on the order.

        Args:
            budget: number of new tokens in one forward pass. progress: called with the share done in [0, 1].
            journal: the answers of an earlier run; `journal.complete` reads and writes it.
        """
