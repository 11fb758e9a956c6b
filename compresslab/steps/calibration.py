"""Passing calibration text through a model with an eye on its insides."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from compresslab.errors import RunFailed


def check_finite_scores(scores: list[float], what: str) -> None:
    """Stop before anything is cut by scores that mean nothing.

    Args:
        scores: one number a layer.

    Raises:
        RunFailed: naming the first layer whose score is NaN or infinite.
    """
    for number, score in enumerate(scores):
        if not math.isfinite(score):
            raise RunFailed(f"the {what} of layer {number} is {score}: the activations are not finite; try dtype float32 or bfloat16")


@contextlib.contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Forward hooks on modules, gone again at the end whatever happens."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
