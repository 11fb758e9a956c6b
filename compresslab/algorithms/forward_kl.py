"""Forward Kullback-Leibler divergence from the teacher's next-token distribution to the student's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum over positions of KL(teacher || student) in nats, scaled by temperature squared.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; the square
    keeps the gradient's size independent of the temperature.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). Computed in float32 whatever comes in. No gradient
            flows to the teacher.
    """
    loss: Tensor = _ForwardKL.apply(student_logits, teacher_logits, temperature)  # type: ignore[no-untyped-call]
    return loss


class _ForwardKL(torch.autograd.Function):
    """The gradient to the student's logits is temperature * (student - teacher probabilities).

    Written out, because over a large vocabulary the time goes into passes over the logits, and autograd makes twice
    as many of them and keeps three tensors where this keeps one.
    """

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        student = F.log_softmax(_scaled(student_logits, temperature), dim=-1)
        teacher = F.log_softmax(_scaled(teacher_logits, temperature), dim=-1)
        difference = teacher - student
        probabilities = teacher.exp_()
        ctx.gradient = student.exp_().sub_(probabilities)
        ctx.temperature, ctx.dtype = temperature, student_logits.dtype
        return difference.mul_(probabilities).sum() * temperature**2

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None, None]:
        return (ctx.gradient * (upstream[0] * ctx.temperature)).to(ctx.dtype), None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() if temperature == 1 else logits.float() / temperature
