"""Importance of the channels of the hidden states from their activations, without gradients."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def channel_sum_of_squares(sums_of_squares: Iterable[Tensor]) -> Tensor:
    """Sum over layers of the sums of squares of the normalised hidden states, (channels,).

    Source: Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation", arXiv 2407.14679, section 2.2: an
    embedding channel's importance is that of the norms' outputs in it, summed over all layers, because it is removed from all of them.

    Args:
        sums_of_squares: (channels,) sums of squares of the output of each norm, before attention and MLP of each layer.
    """
    total: Tensor = sum(sums_of_squares)  # type: ignore[assignment]
    return total
