"""Token sequences as one trie in preorder, divided into forwards of equal size that compute every node once.

If nodes in preorder are divided into consecutive pieces, all ancestors of a piece's nodes in earlier pieces are ancestors of its first
node. Only one path of keys and values must therefore be kept from one forward to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """A trie of token sequences.

    Attributes:
        tokens, depth, parent: token, depth and parent of each node in preorder; the parent of a root is -1.
        score_node, score_target, score_request: the node after which the token `score_target` is scored, and the request, for each
            target; sorted by node.
        requests: number of requests.
    """

    tokens: Integers
    depth: Integers
    parent: Integers
    score_node: Integers
    score_target: Integers
    score_request: Integers
    requests: int

    def scored(self, start: int, stop: int) -> tuple[slice, Integers, Integers]:
        """The slice of the targets after nodes `start` to `stop`, their distinct nodes (at least one, counted from `start`), and the index
        of each target's node among these."""
        low, high = (int(place) for place in np.searchsorted(self.score_node, [start, stop]))
        nodes, place = np.unique(self.score_node[low:high] - start, return_inverse=True)
        # A forward without targets needs the logits of one row, since not every head accepts none.
        return slice(low, high), nodes if len(nodes) else np.array([stop - start - 1]), place

    def answers(self, logprobs: NDArray[np.float64], greedy: NDArray[np.bool_]) -> list[tuple[float, bool]]:
        """Each request's log-likelihood and whether all its targets are greedy."""
        sums = np.bincount(self.score_request, weights=logprobs, minlength=self.requests)
        missed = np.bincount(self.score_request, weights=~greedy, minlength=self.requests)
        return [(float(total), misses == 0) for total, misses in zip(sums, missed.tolist(), strict=True)]


@dataclass(frozen=True)
class Forward:
    """Nodes `start` to `stop` as one forward.

    Attributes:
        past: length of the path kept from earlier forwards.
        visible: (new, past + new) whether each new node attends to each kept position and each new node.
        keep: indices of those positions that the next forward needs, in order of depth.
    """

    start: int
    stop: int
    past: int
    visible: NDArray[np.bool_]
    keep: Integers


def build(sequences: Iterable[Sequence[int]], targets: Sequence[Sequence[int]]) -> Trie:
    """The trie of `sequences`, where `targets[i]` are the tokens to score after the last `len(targets[i])` positions of `sequences[i]`.

    Except for the indices of requests, the result does not depend on the order of the sequences.
    """
    # Big-endian bytes sort like token lists and are compared with one memcmp.
    keys = [np.asarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    path = np.zeros(max(map(len, keys), default=0) // 4, dtype=np.int64)
    tokens: list[Integers] = []
    depth: list[Integers] = []
    parent: list[Integers] = []
    nodes: list[Integers] = []
    scored: list[Integers] = []
    requests: list[Integers] = []
    before: Integers = np.zeros(0, dtype=np.int64)
    count = 0
    # The sort key includes the targets, so that the order of equal sequences is deterministic.
    for request in sorted(range(len(keys)), key=lambda i: (keys[i], list(targets[i]))):
        sequence = np.frombuffer(keys[request], dtype=">u4").astype(np.int64)
        shared = _common_length(before, sequence)
        if new := len(sequence) - shared:
            ids = np.arange(count, count + new)
            parents = ids - 1
            parents[0] = path[shared - 1] if shared else -1
            path[shared : len(sequence)] = ids
            tokens.append(sequence[shared:])
            depth.append(np.arange(shared, len(sequence)))
            parent.append(parents)
            count += new
        target_ids: Integers = np.asarray(targets[request], dtype=np.int64)
        nodes.append(path[len(sequence) - len(target_ids) : len(sequence)].copy())
        scored.append(target_ids)
        requests.append(np.full(len(target_ids), request))
        before = sequence
    node = _concatenated(nodes)
    order = np.argsort(node, kind="stable")
    scores = node[order], _concatenated(scored)[order], _concatenated(requests)[order]
    return Trie(_concatenated(tokens), _concatenated(depth), _concatenated(parent), *scores, requests=len(keys))


def forward_count(trie: Trie, budget: int) -> int:
    """In how many forwards of `budget` nodes a trie is computed; the last one may be shorter."""
    return -(-len(trie.tokens) // budget)


def forward_at(trie: Trie, budget: int, number: int) -> Forward:
    """One of the forwards of a trie, by its number."""
    start = number * budget
    stop = min(start + budget, len(trie.tokens))
    past = int(trie.depth[start])
    visible = np.zeros((stop - start, past + stop - start), dtype=bool)
    parent = trie.parent[start:stop]
    # Consecutive nodes that are each the child of the node before are one block of the mask.
    breaks = np.flatnonzero(parent[1:] != np.arange(start, stop - 1)) + 1
    for first, end in pairwise([0, *breaks.tolist(), stop - start]):
        visible[first:end] = _row(trie, visible, start, start + first)
        visible[first:end, past + first : past + end] |= np.tri(end - first, dtype=bool)
    keep = np.flatnonzero(_row(trie, visible, start, stop)) if stop < len(trie.tokens) else np.zeros(0, dtype=np.int64)
    return Forward(start, stop, past, visible, keep)


def with_ancestors(trie: Trie, budget: int, numbers: Iterable[int]) -> list[int]:
    """The numbers of some forwards, and of those that compute the keys and values of their paths, in order.

    Computing only these gives the same keys and values as computing all.
    """
    needed = set(numbers)
    waiting = list(needed)
    while waiting:
        node = int(trie.parent[waiting.pop() * budget])
        while node >= 0:
            if node // budget not in needed:
                needed.add(node // budget)
                waiting.append(node // budget)
            node = int(trie.parent[node])
    return sorted(needed)


def _row(trie: Trie, visible: NDArray[np.bool_], start: int, node: int) -> NDArray[np.bool_]:
    """The positions of the ancestors of `node`, in a forward that begins at `start`."""
    row = np.zeros(visible.shape[1], dtype=bool)
    ancestor = int(trie.parent[node])
    if ancestor >= start:
        row |= visible[ancestor - start]
    else:
        row[: int(trie.depth[node])] = True
    return row


def _common_length(left: Integers, right: Integers) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def _concatenated(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
