"""What the calibration-based steps have in common: reading second moments, and refusing scores that mean nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

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
def second_moments(where: str) -> Iterator[None]:
    """Tell, of second moments that cannot be used, where they are and what to do.

    Raises:
        RunFailed: in place of the `ValueError` of `inverse_factor`.
    """
    try:
        yield
    except ValueError as error:
        raise RunFailed(f"{where}: {error}; take more calibration text, or a larger damping") from error
