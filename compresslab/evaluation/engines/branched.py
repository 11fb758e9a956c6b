"""Log-likelihoods where branches cannot lie side by side under a mask (recurrent and hybrid models): one branch after the other.

What requests share is read once: at each node of the trie where it branches, what the model remembers there (keys and values, recurrent
states) is copied, and every branch goes on from a copy.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.journal import Journal
from compresslab.evaluation.engines.target_scores import target_scores
from compresslab.evaluation.engines.trie import Trie


class Piece(NamedTuple):
    """Nodes `start` to `stop` of a trie, each the child of the one before it; nothing branches off but at the last one."""

    start: int
    stop: int


def pieces(trie: Trie, budget: int) -> Iterator[Piece]:
    """The trie's nodes in order, in pieces of at most `budget`."""
    count = len(trie.tokens)
    follows = np.zeros(count, dtype=bool)
    follows[1:] = trie.parent[1:] == np.arange(count - 1)
    branches = np.zeros(count, dtype=bool)
    branches[trie.parent[(trie.parent >= 0) & ~follows]] = True
    start = 0
    for node in range(1, count + 1):
        if node == count or not follows[node] or branches[node - 1] or node - start == budget:
            yield Piece(start, node)
            start = node


@torch.inference_mode()
def along_branches(
    model: PreTrainedModel, trie: Trie, cut: Sequence[Piece], progress: Callable[[float], None], journal: Journal
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability and greediness of each of the trie's targets.

    Args:
        cut: the trie's pieces, a forward each. journal: holds the pieces that were answered before a stop.
    """
    logprobs = np.zeros(len(trie.score_node))
    greedy = np.zeros(len(trie.score_node), dtype=bool)
    known = len(journal.pieces)
    again = _ancestral(trie, cut, known)
    name = cache_name(model)
    waiting = Counter(int(trie.parent[piece.start]) for number, piece in enumerate(cut) if number >= known or number in again)
    remembered: dict[int, Any] = {-1: None}
    for number, piece in enumerate(cut):
        targets, rows, row = trie.scored(*piece)
        if number < known:
            logprobs[targets], greedy[targets] = journal.pieces[number]
            if number not in again:
                continue
        parent = int(trie.parent[piece.start])
        waiting[parent] -= 1
        # The last branch may write on what the others copied.
        cache = copy.deepcopy(remembered[parent]) if waiting[parent] else remembered.pop(parent)
        ids = torch.from_numpy(trie.tokens[slice(*piece)])[None].to(model.device)
        output = model(input_ids=ids, use_cache=True, logits_to_keep=torch.from_numpy(rows).to(model.device), **{name: cache})
        if waiting[piece.stop - 1]:
            remembered[piece.stop - 1] = output[name]
        if number >= known:
            found = target_scores(output.logits[0], torch.from_numpy(row), torch.from_numpy(trie.score_target[targets]))
            logprobs[targets], greedy[targets] = found
            journal.add([part.tolist() for part in found])
        progress(piece.stop / len(trie.tokens))
    return logprobs, greedy


def _ancestral(trie: Trie, cut: Sequence[Piece], known: int) -> set[int]:
    """The first `known` pieces that later ones go on from."""
    place = {piece.stop - 1: number for number, piece in enumerate(cut)}
    needed: set[int] = set()
    for piece in cut[known:]:
        above = place.get(int(trie.parent[piece.start]))
        while above is not None and above < known and above not in needed:
            needed.add(above)
            above = place.get(int(trie.parent[cut[above].start]))
    return needed
