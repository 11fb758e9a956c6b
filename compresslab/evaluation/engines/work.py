"""What engines are asked and what they answer: the one shape that all engines have."""

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
"""Sum of the log-probabilities of a continuation's tokens in nats, and whether greedy decoding would give this continuation."""


class LogLikelihoodRequest(NamedTuple):
    """Token ids of a context (at least one) and of the continuation (at least one) whose log-likelihood is asked for."""

    context: Sequence[int]
    continuation: Sequence[int]

    @property
    def input_ids(self) -> list[int]:
        """The tokens that the model reads. The last token of the continuation is only scored, as in lm-eval."""
        return [*self.context, *self.continuation][:-1]

    @property
    def length(self) -> int:
        """How many tokens the model reads."""
        return len(self.context) + len(self.continuation) - 1

    def cut(self, max_length: int) -> LogLikelihoodRequest:
        """The request with as much of its context cut from the left as does not fit; continuations have at most `max_length` tokens."""
        excess = max(0, self.length - max_length)
        return self._replace(context=self.context[excess:]) if excess else self


@dataclass(frozen=True)
class LogLikelihoodWork:
    """Log-likelihoods to compute; requests that an engine gets fit the model's context."""

    requests: Sequence[LogLikelihoodRequest]

    @cached_property
    def trie(self) -> Trie:
        """All requests as one trie."""
        return build((request.input_ids for request in self.requests), [request.continuation for request in self.requests])

    @property
    def tokens(self) -> int:
        """How many tokens are read where nothing is shared."""
        return sum(request.length for request in self.requests)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max((request.length for request in self.requests), default=0)

    def content(self) -> Iterator[bytes]:
        """What decides the answers, for the journal."""
        for part in (part for request in self.requests for part in request):
            yield np.asarray(part, dtype=np.int64).tobytes()


class Prompt(NamedTuple):
    """What to generate from.

    Attributes:
        input_ids: at least one token.
        stop_reached: called after each new token with all new tokens; says whether the answer ends here.
        stop_sequences: the strings that end an answer.
        other_settings: what else the task sets for generation, by transformers' names.
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
        """Tokens of the longest sequence, with all the new tokens that it may get."""
        return max((len(prompt.input_ids) + prompt.max_new_tokens for prompt in self.prompts), default=0)

    def content(self) -> Iterator[bytes]:
        """What decides the answers, for the journal."""
        for prompt in self.prompts:
            yield json.dumps([prompt.input_ids, prompt.max_new_tokens, prompt.stop_sequences]).encode()


Work = TypeVar("Work", LogLikelihoodWork, GenerationWork, contravariant=True)
Answer = TypeVar("Answer")


class Engine(Protocol[Work, Answer]):
    """A way to compute answers. Every engine is a function of this shape."""

    def __call__(
        self, model: PreTrainedModel, work: Work, budget: int, progress: Callable[[float], None], journal: Journal, /
    ) -> list[Answer]:
        """The answers in the order of the requests; the numbers do not depend on that order.

        Args:
            budget: new tokens in one forward pass. progress: called with the share in [0, 1] that is done.
            journal: what is answered already, from before a stop; `journal.resume` reads it and writes it.
        """
