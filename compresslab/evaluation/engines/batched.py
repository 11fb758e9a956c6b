"""Log-likelihoods of requests that share nothing: batches through the model's own attention, with logits only where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from compresslab.evaluation.engines.journal import Journal, resume
from compresslab.evaluation.engines.target_scores import target_scores
from compresslab.evaluation.engines.work import LogLikelihood, LogLikelihoodRequest, LogLikelihoodWork

# A batch has this many times as many tokens as a forward pass of a tree, since nothing else is kept, and logits at no more positions.
BUDGET_FACTOR = 2


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, work: LogLikelihoodWork, budget: int, progress: Callable[[float], None], journal: Journal
) -> list[LogLikelihood]:
    """Log-likelihoods of the requests; see `work.Engine`.

    Sequences are padded on the right, where a causal model's earlier positions do not see it, so no mask is needed.
    """
    requests = work.requests
    order = sorted(range(len(requests)), key=lambda i: (requests[i].length, requests[i].input_ids, list(requests[i].continuation)))
    longest_continuation = max((len(request.continuation) for request in requests), default=0)
    batches = _batches([requests[i].length for i in order], longest_continuation, budget)

    def compute(batch: range) -> list[LogLikelihood]:
        return _batch_log_likelihoods(model, [requests[order[place]] for place in batch])

    answers: dict[int, LogLikelihood] = {}
    for batch, found in resume(batches, compute, journal):
        answers.update((order[place], (logprob, greedy)) for place, (logprob, greedy) in zip(batch, found, strict=True))
        progress(len(answers) / len(order))
    return [answers[i] for i in range(len(requests))]


def _batches(lengths: Sequence[int], longest_continuation: int, budget: int) -> Iterator[range]:
    """Runs of neighbours whose padded tokens, and whose logits, are no more than may be; at least one sequence each.

    Args:
        lengths: of the sequences, in rising order.
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
    """Of requests in one forward pass."""
    width = max(request.length for request in requests)
    ids = torch.tensor([request.input_ids + [0] * (width - request.length) for request in requests], device=model.device)
    places = [range(request.length - len(request.continuation), request.length) for request in requests]
    # Of every sequence the logits at all positions that any is asked at: lengths in a batch differ little.
    kept = sorted({place for asked in places for place in asked})
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor(kept, device=model.device)).logits
    column = {place: number for number, place in enumerate(kept)}
    rows = torch.tensor([number * len(kept) + column[place] for number, asked in enumerate(places) for place in asked])
    targets = torch.tensor([token for request in requests for token in request.continuation])
    logprobs, greedy = target_scores(logits.flatten(0, 1), rows, targets)
    ends = np.cumsum([len(request.continuation) for request in requests])[:-1]
    return [(float(part.sum()), bool(likely.all())) for part, likely in zip(np.split(logprobs, ends), np.split(greedy, ends), strict=True)]
