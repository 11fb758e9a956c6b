"""Log-likelihoods of requests without shared prefixes, in batches with the model's own attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.engines.target_scores import target_scores
from compresslab.evaluation.engines.work import LogLikelihood, LogLikelihoodRequest, LogLikelihoodWork

# A batch has this many times the tokens of a forward pass of a tree, since it keeps no cache, and logits at no more positions.
BUDGET_FACTOR = 2


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, work: LogLikelihoodWork, budget: int, progress: Callable[[float], None], journal: Journal
) -> list[LogLikelihood]:
    """Log-likelihoods of the requests; see `work.Engine`.

    Sequences are padded on the right, which earlier positions of a causal model do not see, so no mask is needed.
    """
    requests = work.requests
    order = sorted(range(len(requests)), key=lambda i: (requests[i].length, requests[i].input_ids, list(requests[i].continuation)))
    longest_continuation = max((len(request.continuation) for request in requests), default=0)
    batches = list(_batches([requests[i].length for i in order], longest_continuation, budget))

    def compute(numbers: Sequence[int]) -> Iterator[list[LogLikelihood]]:
        for number in numbers:
            yield _batch_log_likelihoods(model, [requests[order[place]] for place in batches[number]])

    answers: dict[int, LogLikelihood] = {}
    for batch, found in zip(batches, complete(len(batches), compute, journal, progress), strict=True):
        answers.update((order[place], (logprob, greedy)) for place, (logprob, greedy) in zip(batch, found, strict=True))
    return [answers[i] for i in range(len(requests))]


def _batches(lengths: Sequence[int], longest_continuation: int, budget: int) -> Iterator[range]:
    """Ranges of consecutive sequences within the limits of padded tokens and of logits, of at least one sequence each.

    Args:
        lengths: lengths of the sequences, in ascending order.
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop < len(lengths):
            rows, columns = stop + 1 - start, lengths[stop] - lengths[start] + longest_continuation
            if rows * lengths[stop] <= BUDGET_FACTOR * budget and rows * columns <= budget:
                continue
        yield range(start, stop)
        start = stop


def _batch_log_likelihoods(model: PreTrainedModel, requests: Sequence[LogLikelihoodRequest]) -> list[LogLikelihood]:
    """The log-likelihoods of requests in one forward pass."""
    width = max(request.length for request in requests)
    ids = torch.tensor([request.input_ids + [0] * (width - request.length) for request in requests], device=model.device)
    positions = [range(request.length - len(request.continuation), request.length) for request in requests]
    # Logits of every sequence at all positions that one of them needs, since lengths in a batch differ little.
    logit_positions = sorted({position for needed in positions for position in needed})
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor(logit_positions, device=model.device)).logits
    column = {position: number for number, position in enumerate(logit_positions)}
    rows = torch.tensor(
        [number * len(logit_positions) + column[position] for number, needed in enumerate(positions) for position in needed]
    )
    targets = torch.tensor([token for request in requests for token in request.continuation])
    logprobs, greedy = target_scores(logits.flatten(0, 1), rows, targets)
    ends = np.cumsum([len(request.continuation) for request in requests])[:-1]
    return [
        (float(part.sum()), bool(part_greedy.all()))
        for part, part_greedy in zip(np.split(logprobs, ends), np.split(greedy, ends), strict=True)
    ]
