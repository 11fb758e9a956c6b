"""Block influence: how much a layer changes the hidden states."""

from __future__ import annotations

import torch
from torch import Tensor


def block_influence(before: Tensor, after: Tensor) -> Tensor:
    """1 - mean cosine similarity of a layer's input and output, a scalar in [0, 2].

    Source: Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
    arXiv 2403.03853, equation 1.

    Args:
        before, after: hidden states (..., hidden) at the layer's input and output.
    """
    return 1 - torch.cosine_similarity(before.float(), after.float(), dim=-1).mean()
