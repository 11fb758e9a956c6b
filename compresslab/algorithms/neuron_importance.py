"""Importance of MLP neurons from their activations, without gradients."""

from __future__ import annotations

from torch import Tensor


def activation_energy(activations: Tensor) -> Tensor:
    """Sum of squares of each neuron's activation, (neurons,) in float64; sums over batches add up.

    The square root of the sum is Minitron's importance with the L2 norm over batch and sequence: Muralidharan et al.
    2024, "Compact Language Models via Pruning and Knowledge Distillation", arXiv 2407.14679, section 2.2. Neurons are
    ranked by it, and the root does not change a ranking.

    Args:
        activations: (..., neurons), the input of the layer's down projection.
    """
    return activations.flatten(0, -2).double().square().sum(0)


def kept_neurons(importance: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` most important neurons, ascending, so that the kept rows stay in their order."""
    return importance.topk(keep).indices.sort().values
