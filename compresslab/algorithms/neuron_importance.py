"""Selection of the most important neurons, heads or channels by their activations."""

from __future__ import annotations

from torch import Tensor


def most_important(importance: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` largest importances, ascending, so that the kept ones stay in order; of equal ones the first.

    The importance of an MLP neuron is the sum of squares of its activation over the calibration tokens. Its ranking is that of
    Minitron's with the L2 norm over batch and sequence: Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge
    Distillation", arXiv 2407.14679, section 2.2.

    Args:
        importance: (neurons,), or one value per head or channel.
    """
    return importance.argsort(descending=True, stable=True)[:keep].sort().values


def share_lost(sum_of_squares: Tensor, kept: Tensor) -> float:
    """The share of the total sum of squares in the removed ones, in [0, 1]."""
    total = float(sum_of_squares.sum())
    return max(0.0, 1 - float(sum_of_squares[kept].sum()) / total) if total else 0.0
