"""Token sequences as one trie in preorder, cut into forwards of equal size in which every trie node is computed once.

When nodes in preorder are cut anywhere into consecutive pieces, all ancestors of a later piece that lie in earlier pieces
are ancestors of its first node. So only one path of keys and values has to be kept from one forward to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """A trie of token sequences.

    Attributes:
        tokens, depth, parent: of each node in preorder; the parent of a root is -1.
        score_node, score_target, score_request: which token `score_target` is scored after which node and for which
            request; sorted by node.
        requests: how many there are.
    """

    tokens: Integers
    depth: Integers
    parent: Integers
    score_node: Integers
    score_target: Integers
    score_request: Integers
    requests: int

    def scored(self, start: int, stop: int) -> tuple[slice, Integers, Integers]:
        """Which targets are scored after nodes `start` to `stop`, after which of these nodes (one at least, counted from `start`), and the
        place of each target's node among them."""
        low, high = (int(place) for place in np.searchsorted(self.score_node, [start, stop]))
        nodes, place = np.unique(self.score_node[low:high] - start, return_inverse=True)
        # A forward that scores nothing still needs the logits of one row: not every head takes none.
        return slice(low, high), nodes if len(nodes) else np.array([stop - start - 1]), place

    def answers(self, logprobs: NDArray[np.float64], greedy: NDArray[np.bool_]) -> list[tuple[float, bool]]:
        """Each request's log-likelihood and whether all of it is greedy, from those of the targets."""
        sums = np.bincount(self.score_request, weights=logprobs, minlength=self.requests)
        missed = np.bincount(self.score_request, weights=~greedy, minlength=self.requests)
        return [(float(total), misses == 0) for total, misses in zip(sums, missed.tolist(), strict=True)]


@dataclass(frozen=True)
class Forward:
    """Nodes `start` to `stop` as one forward.

    Attributes:
        past: length of the path kept from the forwards before.
        visible: for each of the nodes which of the `past` kept positions and of the new nodes it attends to.
        keep: which of those positions the next forward needs, in order of depth.
    """

    start: int
    stop: int
    past: int
    visible: NDArray[np.bool_]
    keep: Integers


def build(sequences: Iterable[Sequence[int]], targets: Sequence[Sequence[int]]) -> Trie:
    """The trie of `sequences`, where `targets[i]` are the tokens to score after the last `len(targets[i])` positions of `sequences[i]`.

    The result does not depend on the order of the sequences (but for the numbers of the requests).
    """
    # Big-endian bytes sort like the token lists, and comparing them is one memcmp.
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
    # The targets take part in the order so that the order of equal sequences, too, is always the same.
    for request in sorted(range(len(keys)), key=lambda i: (keys[i], list(targets[i]))):
        sequence = np.frombuffer(keys[request], dtype=">u4").astype(np.int64)
        shared = _shared(before, sequence)
        if new := len(sequence) - shared:
            ids = np.arange(count, count + new)
            above = ids - 1
            above[0] = path[shared - 1] if shared else -1
            path[shared : len(sequence)] = ids
            tokens.append(sequence[shared:])
            depth.append(np.arange(shared, len(sequence)))
            parent.append(above)
            count += new
        wanted: Integers = np.asarray(targets[request], dtype=np.int64)
        nodes.append(path[len(sequence) - len(wanted) : len(sequence)].copy())
        scored.append(wanted)
        requests.append(np.full(len(wanted), request))
        before = sequence
    node = _joined(nodes)
    order = np.argsort(node, kind="stable")
    scores = node[order], _joined(scored)[order], _joined(requests)[order]
    return Trie(_joined(tokens), _joined(depth), _joined(parent), *scores, requests=len(keys))


def forwards(trie: Trie, budget: int) -> Iterator[Forward]:
    """The trie in forwards of `budget` nodes (the last one may be shorter)."""
    for start in range(0, len(trie.tokens), budget):
        stop = min(start + budget, len(trie.tokens))
        past = int(trie.depth[start])
        visible = np.zeros((stop - start, past + stop - start), dtype=bool)
        parent = trie.parent[start:stop]
        # A run of nodes each of which is the child of the one before it is one block of the mask.
        breaks = np.flatnonzero(parent[1:] != np.arange(start, stop - 1)) + 1
        for first, end in pairwise([0, *breaks.tolist(), stop - start]):
            visible[first:end] = _row(trie, visible, start, start + first)
            visible[first:end, past + first : past + end] |= np.tri(end - first, dtype=bool)
        keep = np.flatnonzero(_row(trie, visible, start, stop)) if stop < len(trie.tokens) else np.zeros(0, dtype=np.int64)
        yield Forward(start, stop, past, visible, keep)


def ancestor_forwards(trie: Trie, budget: int, number: int) -> set[int]:
    """The forwards before forward `number` that compute the keys and values of its path, and those that these need.

    Computing these alone gives the same keys and values as computing all.
    """
    needed: set[int] = set()
    waiting = [number] if number * budget < len(trie.tokens) else []
    while waiting:
        first = waiting.pop() * budget
        node = int(trie.parent[first])
        while node >= 0:
            if node // budget not in needed:
                needed.add(node // budget)
                waiting.append(node // budget)
            node = int(trie.parent[node])
    return needed


def _row(trie: Trie, visible: NDArray[np.bool_], start: int, node: int) -> NDArray[np.bool_]:
    """The positions of the ancestors of `node`, in a forward that begins at `start`."""
    row = np.zeros(visible.shape[1], dtype=bool)
    above = int(trie.parent[node])
    if above >= start:
        row |= visible[above - start]
    else:
        row[: int(trie.depth[node])] = True
    return row


def _shared(left: Integers, right: Integers) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def _joined(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
