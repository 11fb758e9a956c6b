"""Log-likelihoods by lm-eval's `hf` model, which is exact for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lm_eval.models.huggingface import HFLM

from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.engines.work import LogLikelihood, LogLikelihoodWork

SLICE = 128  # requests between two progress reports


def log_likelihoods(
    lm: HFLM,
    work: LogLikelihoodWork,
    budget: int,  # noqa: ARG001, lm-eval's batch size decides
    progress: Callable[[float], None],
    journal: Journal,
) -> list[LogLikelihood]:
    """Log-likelihoods of the requests; see `work.Engine`. lm-eval's model truncates requests that do not fit its context.

    Requests are sorted here so that batches do not depend on their order.
    """
    lists = [(list(context), list(continuation)) for context, continuation in work.requests]
    # lm-eval can compute the logits of equal inputs once, but it scores wrong rows if a sequence is split in two ways.
    splits = {(tuple(context + continuation[:-1]), len(continuation)) for context, continuation in lists}
    lm.logits_cache = len(splits) == len({tokens for tokens, _ in splits})
    order = sorted(range(len(lists)), key=lambda i: (-len(lists[i][0]) - len(lists[i][1]), *lists[i]))

    slices = [order[start : start + SLICE] for start in range(0, len(order), SLICE)]

    def compute(numbers: Sequence[int]) -> Iterator[list[LogLikelihood]]:
        for number in numbers:
            requests = [(None, *lists[i]) for i in slices[number]]
            yield HFLM._loglikelihood_tokens(lm, requests, disable_tqdm=True)  # not the method of a subclass

    answers: dict[int, LogLikelihood] = {}
    for part, found in zip(slices, complete(len(slices), compute, journal, progress), strict=True):
        answers.update((i, (logprob, greedy)) for i, (logprob, greedy) in zip(part, found, strict=True))
    return [answers[i] for i in range(len(lists))]
