from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.evaluation.engines.trie import Trie, build, forward_at, forward_count

SEQUENCES = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [1, 2, 3, 4, 5], [7], [1, 2, 3, 4], [1, 2, 8, 8, 8, 8]]
TARGETS = [[6, 6], [1], [7, 7], [3], [5], [1, 1, 1]]


def seen(trie: Trie, budget: int) -> dict[int, list[int]]:
    """What each node attends to, as tokens in order of depth, following the kept positions from forward to forward."""
    kept: list[int] = []
    context: dict[int, list[int]] = {}
    for forward in (forward_at(trie, budget, number) for number in range(forward_count(trie, budget))):
        assert forward.past == len(kept)
        positions = kept + list(range(forward.start, forward.stop))
        for local, node in enumerate(range(forward.start, forward.stop)):
            context[node] = [int(trie.tokens[positions[i]]) for i in np.flatnonzero(forward.visible[local])]
        kept = [positions[i] for i in forward.keep]
    return context


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 100])
def test_every_scored_node_sees_exactly_its_own_sequence_however_the_trie_is_cut(budget: int) -> None:
    trie = build(SEQUENCES, TARGETS)
    context = seen(trie, budget)
    met: dict[int, list[tuple[list[int], int]]] = {}
    for node, target, request in zip(trie.score_node, trie.score_target, trie.score_request, strict=True):
        met.setdefault(int(request), []).append((context[int(node)], int(target)))
    for request, (sequence, targets) in enumerate(zip(SEQUENCES, TARGETS, strict=True)):
        ends = range(len(sequence) - len(targets) + 1, len(sequence) + 1)
        assert met[request] == [(sequence[:end], target) for end, target in zip(ends, targets, strict=True)]


def test_each_distinct_prefix_is_one_node() -> None:
    trie = build(SEQUENCES, TARGETS)
    assert len(trie.tokens) == len({tuple(sequence[:end]) for sequence in SEQUENCES for end in range(1, len(sequence) + 1)})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9), st.integers(1, 12))
def test_any_sequences_are_seen_whole(sequences: list[list[int]], budget: int) -> None:
    trie = build(sequences, [[0]] * len(sequences))
    context = seen(trie, budget)
    for node, request in zip(trie.score_node, trie.score_request, strict=True):
        assert context[int(node)] == sequences[int(request)]


def test_the_order_of_the_sequences_does_not_change_the_trie() -> None:
    one, other = build(SEQUENCES, TARGETS), build(SEQUENCES[::-1], TARGETS[::-1])
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.score_target.tolist() == other.score_target.tolist()
    assert one.score_request.tolist() == (len(SEQUENCES) - 1 - other.score_request).tolist()
