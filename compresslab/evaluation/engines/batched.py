"""Log-likelihoods of prompts that share nothing: plain batches of the model's own attention, logits only where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from compresslab.evaluation.engines.journal import Journal
from compresslab.evaluation.engines.target_scores import target_scores

Answer = tuple[float, bool]
LONGER = 2  # times as many tokens a forward as a tree's, since nothing else is kept; logits at no more positions than there


@torch.inference_mode()
def in_batches(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    tails: Sequence[Sequence[int]],
    budget: int,
    progress: Callable[[float], None],
    journals: Path | None = None,
) -> list[Answer]:
    """Log-likelihood of each tail at the end of its sequence, and whether it is the greedy one; independent of the order.

    Sequences are padded on the right, where a causal model's earlier positions do not see it, so no mask is needed.

    Args:
        sequences: token ids without the last one, which is only scored. tails: the ids that are scored, the last one included.
        budget: tokens of a tree's forward. journals: folder for the answers so far, to go on from after a stop.
    """
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), sequences[i], tails[i]))
    asked = (np.array([*sequences[i], -1, *tails[i], -2], dtype=np.int64).tobytes() for i in order)
    journal = Journal(journals, [b"batched", str(budget).encode(), *asked])
    answers: dict[int, Answer] = {}
    for number, batch in enumerate(_batches([len(sequences[i]) for i in order], max(map(len, tails), default=0), budget)):
        chosen = [order[place] for place in batch]
        if number == len(journal.pieces):
            found = _scored(model, [sequences[i] for i in chosen], [tails[i] for i in chosen])
            journal.add([list(answer) for answer in found])
        answers.update(zip(chosen, ((float(total), bool(greedy)) for total, greedy in journal.pieces[number]), strict=True))
        progress(len(answers) / len(order))
    return [answers[i] for i in range(len(sequences))]


def _batches(lengths: Sequence[int], tail: int, budget: int) -> Iterator[range]:
    """Runs of neighbours, by rising length, whose padded tokens and whose logits are no more than may be; at least one each.

    Args:
        tail: the most tokens that are scored of a sequence.
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop < len(lengths):
            rows, columns = stop + 1 - start, lengths[stop] - lengths[start] + tail
            if rows * lengths[stop] <= LONGER * budget and rows * columns <= budget:
                continue
        yield range(start, stop)
        start = stop


def _scored(model: PreTrainedModel, sequences: list[list[int]], tails: Sequence[Sequence[int]]) -> list[Answer]:
    width = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences], device=model.device)
    places = [range(len(sequence) - len(tail), len(sequence)) for sequence, tail in zip(sequences, tails, strict=True)]
    # Of every sequence the logits at all positions that any is asked at: lengths in a batch differ little.
    kept = sorted({place for asked in places for place in asked})
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor(kept, device=model.device)).logits
    column = {place: number for number, place in enumerate(kept)}
    rows = torch.tensor([number * len(kept) + column[place] for number, asked in enumerate(places) for place in asked])
    targets = torch.tensor([token for tail in tails for token in tail])
    logprobs, greedy = target_scores(logits.flatten(0, 1), rows, targets)
    ends = np.cumsum([len(tail) for tail in tails])[:-1]
    return [(float(part.sum()), bool(likely.all())) for part, likely in zip(np.split(logprobs, ends), np.split(greedy, ends), strict=True)]
