"""Importance of the channels of the hidden states from their activations, without gradients."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def channel_sum_of_squares(energies: Iterable[Tensor]) -> Tensor:
    """Sum over layers of the sums of squares of the normalised hidden states, (channels,).

    Source: Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation", arXiv 2407.14679, section 2.2: an
    embedding channel is as important as the outputs of the norms in it, summed over all layers, since it is cut from all of them at once.

    Args:
        energies: (channels,) sums of squares, one for each norm: what attention and MLP read in each layer.
    """
    total: Tensor = sum(energies)  # type: ignore[assignment]
    return total
