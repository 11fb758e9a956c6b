"""Cross-entropy of the next token."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.algorithms.divergence import blocks

# The target of a position without a next token.
IGNORED_TARGET = -100


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over positions of -log P(target) in nats, in float32.

    Args:
        logits: (positions, vocabulary). targets: (positions,) token ids; `IGNORED_TARGET` where there is no next token.
    """
    loss: Tensor = _NextToken.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


class _NextToken(torch.autograd.Function):
    """The gradient is the probabilities minus 1 at the target, computed a few rows at a time for the reason in `divergence`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        precision = torch.promote_types(logits.dtype, torch.float32)
        gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        total = torch.zeros((), dtype=precision, device=logits.device)
        for rows in blocks(logits):
            block_targets = targets[rows]
            student = F.log_softmax(logits[rows].to(precision), dim=-1)
            total += F.nll_loss(student, block_targets, reduction="sum", ignore_index=IGNORED_TARGET)
            has_target = (block_targets != IGNORED_TARGET).to(precision)[:, None]
            student = student.exp_().mul_(has_target)
            gradient[rows] = student.scatter_add_(1, block_targets.clamp(min=0)[:, None], -has_target)
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None  # scaled in place, so it is used once
        return gradient.mul_(upstream[0]), None
