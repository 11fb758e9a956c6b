"""Passing calibration text through a model with an eye on its insides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

# Tokens of one forward pass: enough to fill the cores, small enough that activations stay far below the weights.
TOKENS_A_BATCH = 2048


def batches(ids: Tensor) -> Iterator[Tensor]:
    """Calibration ids (sequences, length) in batches of about `TOKENS_A_BATCH` tokens; all have the same length."""
    rows = max(1, TOKENS_A_BATCH // ids.shape[1])
    for start in range(0, ids.shape[0], rows):
        yield ids[start : start + rows]


@contextlib.contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Forward hooks on modules, gone again at the end whatever happens."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
