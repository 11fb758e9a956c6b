"""In the layout in chunks, each node sees exactly its ancestors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compresslab.evaluation.attention import tree as tree_attention
from compresslab.evaluation.attention.tree import attend, layout, use_layout
from compresslab.evaluation.engines.trie import Forward, Trie, build, forward_at, forward_count

QUESTIONS = [[*range(40), *range(100 * q, 100 * q + 9), *[q + option] * (1 + option)] for q in range(6) for option in range(4)]


def forwards(trie: Trie, budget: int) -> list[Forward]:
    return [forward_at(trie, budget, number) for number in range(forward_count(trie, budget))]


def check(trie: Trie, forward: Forward) -> None:
    nodes = layout(trie, forward)
    new = forward.stop - forward.start
    seen = np.zeros((new, forward.past + new), dtype=bool)
    seen[:, : nodes.shared] = True
    for node in range(new):
        chunk, slot = divmod(node, tree_attention.CHUNK)
        for key in torch.nonzero(nodes.mask[chunk, 0, slot] == 0).flatten().tolist():
            position = int(nodes.keys[chunk, key]) + nodes.shared
            assert not seen[node, position], "seen twice"
            seen[node, position] = True
    assert (seen == forward.visible).all()


@pytest.mark.parametrize("budget", [1, 5, 16, 50, 500])
def test_a_layout_shows_each_node_what_the_mask_shows_it(monkeypatch: pytest.MonkeyPatch, budget: int):
    monkeypatch.setattr(tree_attention, "CHUNK", 4)
    trie = build(QUESTIONS, [[0]] * len(QUESTIONS))
    for forward in forwards(trie, budget):
        check(trie, forward)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9), st.integers(1, 12))
def test_a_layout_of_any_sequences_shows_what_the_mask_shows(sequences: list[list[int]], budget: int):
    trie = build(sequences, [[0]] * len(sequences))
    for forward in forwards(trie, budget):
        check(trie, forward)


def test_branches_do_not_meet(monkeypatch: pytest.MonkeyPatch):
    """For questions after a shared block, products grow with the lengths of the questions only."""
    monkeypatch.setattr(tree_attention, "CHUNK", 4)
    trie = build(QUESTIONS, [[0]] * len(QUESTIONS))
    *_, last = forwards(trie, 40 + 19 * 3)
    nodes = layout(trie, last)
    assert nodes.shared == 40
    assert nodes.mask.numel() < last.visible.size / 4


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("budget", [7, 64])
def test_attention_in_branches_is_attention_under_the_mask(groups: int, budget: int):
    trie = build(QUESTIONS, [[0]] * len(QUESTIONS))
    torch.manual_seed(0)
    for forward in forwards(trie, budget):
        new = forward.stop - forward.start
        query = torch.randn(1, 6, new, 16)
        key, value = torch.randn(2, 1, groups, forward.past + new, 16).unbind(0)
        with use_layout(layout(trie, forward)):
            ours, _ = attend(nn.Module(), query, key, value, None, scaling=0.3)
        repeated = (part.repeat_interleave(6 // groups, dim=1) for part in (key, value))
        plain = nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=torch.from_numpy(forward.visible), scale=0.3)
        torch.testing.assert_close(ours, plain.transpose(1, 2), atol=1e-5, rtol=1e-5)
