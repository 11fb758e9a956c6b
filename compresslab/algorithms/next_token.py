"""Cross-entropy of the next token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over positions of -log P(target) in nats, in float32.

    Args:
        logits: (positions, vocabulary). targets: (positions,) token ids.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum")
