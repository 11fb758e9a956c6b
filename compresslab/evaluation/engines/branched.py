"""Log-likelihoods of requests that share prefixes, for models whose branches cannot share a forward pass (recurrent and hybrid models).

The branches of the trie (see `trie`) are computed one after the other. The model's cache (keys and values, recurrent states) is copied at
each node with several children, and every branch continues from a copy.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.engines.target_scores import piece_scores, request_scores
from compresslab.evaluation.engines.trie import Trie
from compresslab.evaluation.engines.work import LogLikelihood, LogLikelihoodWork


class Branch(NamedTuple):
    """Nodes `start` to `stop` of a trie, each the child of the node before it. Only the last one may have other children."""

    start: int
    stop: int


def branches(trie: Trie, budget: int) -> Iterator[Branch]:
    """The trie's nodes in order, in branches of at most `budget` nodes."""
    count = len(trie.tokens)
    follows = np.zeros(count, dtype=bool)
    follows[1:] = trie.parent[1:] == np.arange(count - 1)
    forks = np.zeros(count, dtype=bool)
    forks[trie.parent[(trie.parent >= 0) & ~follows]] = True
    start = 0
    for node in range(1, count + 1):
        if node == count or not follows[node] or forks[node - 1] or node - start == budget:
            yield Branch(start, node)
            start = node


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, work: LogLikelihoodWork, budget: int, progress: Callable[[float], None], journal: Journal
) -> list[LogLikelihood]:
    """Log-likelihoods of the requests; see `work.Engine`."""
    trie = work.trie
    all_branches = list(branches(trie, budget))

    def compute(numbers: Sequence[int]) -> Iterator[list[list[float]]]:
        computed, asked = _with_ancestors(trie, all_branches, numbers), set(numbers)
        pieces = [all_branches[number] for number in computed]
        found = piece_scores(trie, pieces, _ForwardPasses(model, trie, pieces).logits)
        return (scores for number, scores in zip(computed, found, strict=True) if number in asked)

    return request_scores(trie, complete(len(all_branches), compute, journal, progress))


class _ForwardPasses:
    """Forward passes over some branches of a trie, in order. The cache of a branch is kept while others will continue from it."""

    def __init__(self, model: PreTrainedModel, trie: Trie, to_compute: Sequence[Branch]) -> None:
        self.model, self.trie, self.name = model, trie, cache_name(model)
        self.children_left = Counter(int(trie.parent[branch.start]) for branch in to_compute)
        self.caches: dict[int, Any] = {-1: None}

    def logits(self, branch: Branch, rows: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after the nodes `rows`, counted from the branch's first node."""
        parent = int(self.trie.parent[branch.start])
        self.children_left[parent] -= 1
        # The last branch needs no copy.
        cache = copy.deepcopy(self.caches[parent]) if self.children_left[parent] else self.caches.pop(parent)
        ids = torch.from_numpy(self.trie.tokens[slice(*branch)])[None].to(self.model.device)
        output = self.model(input_ids=ids, use_cache=True, logits_to_keep=rows.to(self.model.device), **{self.name: cache})
        if self.children_left[branch.stop - 1]:
            self.caches[branch.stop - 1] = output[self.name]
        logits: Tensor = output.logits[0]
        return logits


def _with_ancestors(trie: Trie, all_branches: Sequence[Branch], numbers: Sequence[int]) -> list[int]:
    """The numbers of some branches, and of those that they continue from, in order."""
    number_of = {branch.stop - 1: number for number, branch in enumerate(all_branches)}
    needed = set(numbers)
    for number in numbers:
        parent = number_of.get(int(trie.parent[all_branches[number].start]))
        while parent is not None and parent not in needed:
            needed.add(parent)
            parent = number_of.get(int(trie.parent[all_branches[parent].start]))
    return sorted(needed)
