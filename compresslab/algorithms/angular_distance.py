"""Angular distance between hidden states at different depths, which measures the effect of a run of layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angular_distances(states: Tensor) -> Tensor:
    """Mean over sequences of arccos(cosine similarity) / pi between all pairs of depths, (depths, depths) in [0, 1].

    Source: Gromov et al. 2024, "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, equation 7: the best run of n
    layers to drop begins at the l for which the distance of depths l and l + n is smallest.

    Args:
        states: hidden states (depths, sequences, hidden) of the last token, before each layer and after the last one.
    """
    unit = torch.nn.functional.normalize(states.double(), dim=-1).transpose(0, 1)
    cosine = (unit @ unit.transpose(1, 2)).clamp(-1, 1)
    distances = (cosine.arccos() / math.pi).mean(0)
    return distances.fill_diagonal_(0.0).float()
