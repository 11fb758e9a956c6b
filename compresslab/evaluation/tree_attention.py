"""Attention of a trie's nodes to their ancestors, without the products between branches that have nothing to do with each other.

A forward's nodes share the beginning of their past: over that they attend together, without a mask. The rest of what a node sees lies in
its own branch; branches are laid side by side as a batch. Both parts are joined by their log-sum-exp, which is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from compresslab.evaluation.trie import Forward, Integers, Trie

NAME = "compresslab_tree"
HIDDEN = -1e30  # a score that leaves nothing, and is finite, so that a row of padding is no NaN
SHORTEST = 32  # a bundle of branches has room for this many nodes at least


@dataclass(frozen=True)
class Layout:
    """How a forward's nodes lie in bundles of branches.

    Attributes:
        shared: how many positions of the past all nodes see.
        queries: (bundles, room) numbers of new nodes, padded with 0. keys: (bundles, keys) positions behind the shared ones, padded with 0.
        visible: (bundles, room, keys) which of its bundle's keys a node sees.
        places: (new,) where each node lies among the bundles' rooms.
    """

    shared: int
    queries: Tensor
    keys: Tensor
    visible: Tensor
    places: Tensor


_LAYOUT: ContextVar[Layout] = ContextVar("layout")


def layout(trie: Trie, forward: Forward) -> Layout:
    """Branches of equal past in bundles of about equal size."""
    new = forward.stop - forward.start
    roots = np.flatnonzero(trie.parent[forward.start : forward.stop] < forward.start)
    seen = trie.depth[forward.start : forward.stop][roots]
    # In preorder what branches off deeper comes first, so `seen` never grows.
    shared = int(seen[-1])
    # What branches off behind the shared past sees more of it, and stays together, in the first bundle.
    starts = roots[seen == shared]
    if starts[0] > 0:
        starts = np.concatenate([[0], starts])
    ends = np.append(starts[1:], new)
    room = max(SHORTEST, int((ends - starts).max()))
    bundles: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if bundles and end - bundles[-1][0] <= room:
            bundles[-1] = (bundles[-1][0], end)
        else:
            bundles.append((start, end))
    behind = forward.past - shared
    own: list[Integers] = [np.arange(start, end) for start, end in bundles]
    # Only what branches off behind the shared past sees the rest of it.
    keys = [np.arange(behind + own[0][-1] + 1), *(nodes + behind for nodes in own[1:])]
    queries, there = _padded(own)
    positions, known = _padded(keys)
    visible = forward.visible[queries[:, :, None], positions[:, None, :] + shared] & there[:, :, None] & known[:, None, :]
    places = np.flatnonzero(there)
    return Layout(shared, *(torch.from_numpy(part) for part in (queries, positions, visible, places)))


def _padded(parts: Sequence[Integers]) -> tuple[Integers, np.ndarray[Any, np.dtype[np.bool_]]]:
    width = max(map(len, parts))
    numbers = np.zeros((len(parts), width), dtype=np.int64)
    there = np.zeros((len(parts), width), dtype=bool)
    for row, part in enumerate(parts):
        numbers[row, : len(part)], there[row, : len(part)] = part, True
    return numbers, there


@contextlib.contextmanager
def tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend by `attend` instead of its own kernel."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def laid_out(nodes: Layout) -> Iterator[None]:
    """Say how the nodes of the next forward lie."""
    token = _LAYOUT.set(nodes)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def attend(
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float | None = None,
    **others: Any,  # noqa: ARG001
) -> tuple[Tensor, None]:
    """Attention of one forward's nodes, by the layout that `laid_out` says.

    Args:
        query: (1, heads, new, dim). key, value: (1, key/value heads, past + new, dim).

    Returns:
        (1, new, heads, dim).
    """
    nodes = _LAYOUT.get()
    _, heads, new, dim = query.shape
    groups = key.shape[1]
    scale = dim**-0.5 if scaling is None else scaling
    output, weight = _in_branches(query[0], key[0, :, nodes.shared :], value[0, :, nodes.shared :], nodes, scale)
    if nodes.shared:
        # The queries of one key/value head as rows of one product.
        rows = query.reshape(1, groups, -1, dim)
        far, far_weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            rows, key[:, :, : nodes.shared], value[:, :, : nodes.shared], 0.0, False, scale=scale
        )
        far, far_weight = far.reshape(heads, new, dim), far_weight.reshape(heads, new)
        both = torch.logaddexp(weight, far_weight)
        output = output * (weight - both).exp()[..., None] + far * (far_weight - both).exp()[..., None]
    return output.to(query.dtype).transpose(0, 1)[None].contiguous(), None


def _in_branches(query: Tensor, key: Tensor, value: Tensor, nodes: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Attention within bundles: (heads, new, dim) in float32, and the log-sum-exp of the scores (heads, new)."""
    heads, _, dim = query.shape
    groups = key.shape[0]
    bundles, room = nodes.queries.shape
    rows = query[:, nodes.queries].view(groups, heads // groups, bundles, room, dim).transpose(1, 2).reshape(groups, bundles, -1, dim)
    scores = (rows @ key[:, nodes.keys].transpose(2, 3)).float().mul_(scale).view(groups, bundles, heads // groups, room, -1)
    scores.masked_fill_(~nodes.visible[:, None], HIDDEN)
    weight = scores.logsumexp(-1, keepdim=True)
    shares = scores.sub_(weight).exp_().to(value.dtype).view(groups, bundles, (heads // groups) * room, -1)
    output = (shares @ value[:, nodes.keys]).view(groups, bundles, heads // groups, room, dim)
    # (heads, bundles and rooms): padding falls away
    flat = output.transpose(1, 2).reshape(heads, bundles * room, dim)[:, nodes.places].float()
    return flat, weight.view(groups, bundles, heads // groups, room).transpose(1, 2).reshape(heads, bundles * room)[:, nodes.places]
