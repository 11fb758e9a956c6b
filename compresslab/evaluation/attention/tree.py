"""Attention of a trie's nodes to their ancestors, without most products between nodes of different branches.

All nodes of one forward pass attend to the shared beginning of their past in one product without a mask. The rest is short. Nodes in
preorder are divided into chunks. Outside its chunk, a node attends to the same positions as the first node of the chunk. Both parts are
combined by their log-sum-exp, which is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.evaluation.attention.processor import PartialAttention, combined, fused
from compresslab.evaluation.engines.trie import Forward, Trie

NAME = "compresslab_tree"
MASKED = -1e30  # a score whose softmax is 0; finite, so that a row of padding does not become NaN
CHUNK = 64  # nodes; smaller chunks have small products, larger ones have products that are mostly masked


@dataclass(frozen=True)
class Layout:
    """The chunks of one forward pass.

    Attributes:
        shared: number of positions of the past that all nodes see.
        keys: (chunks, keys) positions after the shared ones, padded with 0.
        mask: (chunks, 1, CHUNK, keys) to add to the scores of keys: 0 for those that a node sees. Rows of the last chunk without a node
            are copies of the last node's row.
    """

    shared: int
    keys: Tensor
    mask: Tensor
    _repeated: dict[int, Tensor] = field(default_factory=dict, init=False)

    def mask_rows(self, queries: int) -> Tensor:
        """`mask` repeated for `queries` heads that share keys: (chunks, 1, queries x CHUNK, keys)."""
        if queries not in self._repeated:
            self._repeated[queries] = self.mask.repeat(1, 1, queries, 1)
        return self._repeated[queries]


_LAYOUT: ContextVar[Layout] = ContextVar("layout")


def layout(trie: Trie, forward: Forward) -> Layout:
    """Chunks of nodes in preorder, each with the positions that one of its nodes sees and not all nodes of the forward pass."""
    new = forward.stop - forward.start
    # In preorder, deeper branches come first. The last node with a parent in the past therefore sees the fewest of its positions.
    shared = int(trie.depth[forward.start : forward.stop][trie.parent[forward.start : forward.stop] < forward.start][-1])
    rest = forward.past - shared
    keys = []
    for start in range(0, new, CHUNK):
        ancestors = np.flatnonzero(forward.visible[start, shared : forward.past + start])
        keys.append(np.concatenate([ancestors, rest + np.arange(start, min(start + CHUNK, new))]))
    positions = np.zeros((len(keys), max(map(len, keys))), dtype=np.int64)
    known = np.zeros(positions.shape, dtype=bool)
    for row, chunk_keys in enumerate(keys):
        positions[row, : len(chunk_keys)], known[row, : len(chunk_keys)] = chunk_keys, True
    nodes = np.minimum(np.arange(len(keys) * CHUNK), new - 1).reshape(len(keys), CHUNK)
    visible = forward.visible[nodes[:, :, None], positions[:, None, :] + shared] & known[:, None, :]
    mask = np.where(visible, np.float32(0), np.float32(MASKED))[:, None]
    return Layout(shared, torch.from_numpy(positions), torch.from_numpy(mask))


@contextlib.contextmanager
def use_layout(nodes: Layout) -> Iterator[None]:
    """A context in which `attend` uses the layout of one forward pass."""
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
    """Attention of the nodes of one forward pass, by the layout that `use_layout` sets.

    Args:
        query: (1, heads, new, dim). key, value: (1, key/value heads, past + new, dim).

    Returns:
        (1, new, heads, dim).
    """
    nodes = _LAYOUT.get()
    _, heads, new, dim = query.shape
    groups = key.shape[1]
    scale = dim**-0.5 if scaling is None else scaling
    near = _in_chunks(query[0], key[0, :, nodes.shared :], value[0, :, nodes.shared :], nodes, scale)
    if nodes.shared:
        past = slice(nodes.shared)
        far, weight = fused(query.reshape(1, groups, -1, dim), key[:, :, past], value[:, :, past], scale)
        output = combined(near, (far.reshape(heads, new, dim), weight.reshape(heads, new)))
    else:
        output = near[0]
    return output.to(query.dtype).transpose(0, 1)[None].contiguous(), None


def _in_chunks(query: Tensor, key: Tensor, value: Tensor, nodes: Layout, scale: float) -> PartialAttention:
    """Attention with each chunk as a sequence: (heads, new, dim), and the log-sum-exp of the scores (heads, new)."""
    heads, new, dim = query.shape
    groups = key.shape[0]
    chunks, _, chunk_size, keys_per_chunk = nodes.mask.shape
    queries = heads // groups
    padded = nn.functional.pad(query, (0, 0, 0, chunks * chunk_size - new))
    # The queries of one key/value head as rows of one product.
    rows = padded.view(groups, queries, chunks, chunk_size, dim).permute(2, 0, 1, 3, 4).reshape(chunks, groups, -1, dim)
    keys, values = (
        part.index_select(1, nodes.keys.view(-1)).view(groups, chunks, keys_per_chunk, dim).transpose(0, 1) for part in (key, value)
    )
    output, weight = fused(rows, keys, values, scale, nodes.mask_rows(queries))
    # Remove the padding of the last chunk.
    output = output.view(chunks, groups, queries, chunk_size, dim).permute(1, 2, 0, 3, 4).reshape(heads, -1, dim)[:, :new]
    return output, weight.view(chunks, groups, queries, chunk_size).permute(1, 2, 0, 3).reshape(heads, -1)[:, :new]
