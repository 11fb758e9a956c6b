"""Attention of many sequences with a shared prefix, whose keys and values are stored and read only once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from compresslab.evaluation.attention.processor import combined, fused

NAME = "compresslab_shared"

# Keys and values of the shared prefix by layer, each (key/value heads, prefix, head dimension).
SharedPrefix = list[tuple[Tensor, Tensor]]
_PREFIX: ContextVar[SharedPrefix | None] = ContextVar("prefix", default=None)


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in preallocated memory, so that a decoding step does not copy earlier ones."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.filled = capacity, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (sequences, heads, new, dimension); returns all."""
        self._allocate(len(key_states), key_states, value_states)
        end = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : end], self.values[:, :, self.filled : end] = key_states, value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def write_sequence(self, row: int, sequences: int, end: int, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values (1, heads, length, dimension) of one of the sequences, up to position `end`."""
        self._allocate(sequences, keys, values)
        start = end - keys.shape[2]
        self.keys[row, :, start:end], self.values[row, :, start:end] = keys[0], values[0]
        self.filled = end

    def _allocate(self, sequences: int, keys: Tensor, values: Tensor) -> None:
        if self.is_initialized:
            return
        self.lazy_initialization(keys, values)
        # Positions without values are multiplied by a weight of 0, so they must be finite.
        self.keys = keys.new_zeros(sequences, keys.shape[1], self.capacity, keys.shape[-1])
        self.values = values.new_zeros(sequences, values.shape[1], self.capacity, values.shape[-1])

    def get_seq_length(self) -> int:
        """The number of filled positions."""
        return self.filled

    def select(self, rows: Tensor) -> None:
        """Keep only the sequences `rows`."""
        self.keys, self.values = self.keys[rows], self.values[rows]


def preallocated_cache(layers: int, capacity: int) -> Cache:
    """A KV cache of `capacity` positions per sequence in every layer."""
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(layers)])


@contextlib.contextmanager
def use_prefix(prefix: SharedPrefix | None) -> Iterator[None]:
    """A context in which all sequences of `attend` follow this prefix."""
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over the whole shared prefix and over the sequences' own keys, in one softmax.

    One matrix product computes the scores of all sequences' queries with the prefix.

    Args:
        query: (sequences, heads, new, dim). key, value: (sequences, key/value heads, own, dim). attention_mask: (sequences, 1, new, own),
            added to the scores. s_aux: (heads,) the score of each head's attention sink, a key without a value (gpt-oss).

    Returns:
        (sequences, new, heads, dim).
    """
    sequences, heads, new, dim = query.shape
    scale = dim**-0.5 if scaling is None else scaling
    # (sequences, key/value heads, queries, dim): the queries of one key/value head as rows of one product
    rows = query.reshape(sequences, key.shape[1], -1, dim)
    added = attention_mask.repeat(1, 1, heads // key.shape[1], 1)
    prefix = _PREFIX.get()
    shared = None if prefix is None else prefix[int(module.layer_idx)]  # type: ignore[arg-type]
    if query.device.type == "cpu" and softcap is None and s_aux is None:
        output = _fused(rows, key, value, added, shared, scale)
    else:
        sinks = None if s_aux is None else s_aux.repeat_interleave(new).view(1, key.shape[1], -1, 1).expand(sequences, -1, -1, -1)
        output = _product(rows, key, value, added, shared, scale, softcap, sinks)
    return output.reshape(sequences, heads, new, dim).transpose(1, 2).contiguous(), None


def _fused(rows: Tensor, key: Tensor, value: Tensor, added: Tensor, shared: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    near = fused(rows, key, value, scale, added)
    if shared is None:
        return near[0]
    sequences, groups, _, dim = rows.shape
    far, weight = fused(rows.transpose(0, 1).reshape(1, groups, -1, dim), shared[0][None], shared[1][None], scale)
    far, weight = far.reshape(groups, sequences, -1, dim).transpose(0, 1), weight.reshape(groups, sequences, -1).transpose(0, 1)
    return combined(near, (far, weight)).to(rows.dtype)


def _product(
    rows: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor,
    shared: tuple[Tensor, Tensor] | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    sequences, groups, _, dim = rows.shape
    scores = rows @ key.transpose(2, 3)
    prefix = 0
    if shared is not None:
        prefix = shared[0].shape[1]
        # (key/value heads, sequences and queries, dim): one product per head for all sequences
        far = rows.transpose(0, 1).reshape(groups, -1, dim) @ shared[0].transpose(1, 2)
        scores = torch.cat([far.view(groups, sequences, -1, prefix).transpose(0, 1), scores], dim=-1)
    scores = scores.float().mul_(scale)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    scores[..., prefix:] += added
    if sinks is not None:
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1).to(value.dtype)[..., : prefix + key.shape[2]]
    output = weights[..., prefix:] @ value
    if shared is not None:
        far = weights[..., :prefix].transpose(0, 1).reshape(groups, -1, prefix) @ shared[1]
        output += far.view(groups, sequences, -1, dim).transpose(0, 1)
    return output
