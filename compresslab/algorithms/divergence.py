"""Common code of the divergences between a teacher's and a student's next-token distributions: one pass over the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits per block on a processor: 2 MB in float32, so that all passes but the first read them from the cache.
BLOCK = 2**19

# Log-probabilities (rows, vocabulary) of student and teacher, which the kernel may overwrite -> the divergence summed over rows, and its
# gradient with respect to the student's logits (rows, vocabulary).
Kernel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float, kernel: Kernel) -> Tensor:
    """Sum over positions of a divergence in nats, scaled by temperature squared.

    The square keeps the gradient's size independent of the temperature (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

    Args:
        student_logits, teacher_logits: (positions, vocabulary). Computed in float32, or in float64 for float64 inputs. No gradient flows
            to the teacher.
        kernel: loss and gradient of a few rows.
    """
    loss: Tensor = _Divergence.apply(student_logits, teacher_logits, temperature, kernel)  # type: ignore[no-untyped-call]
    return loss


class _Divergence(torch.autograd.Function):
    """Loss and gradient in one pass, a few rows at a time.

    The gradient is explicit, because the time for a large vocabulary is that of passes over the logits: autograd makes twice as many,
    each over more data than a cache holds.
    """

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, temperature: float, kernel: Kernel) -> Tensor:
        precision = torch.promote_types(student_logits.dtype, torch.float32)
        gradient = torch.empty(student_logits.shape, dtype=student_logits.dtype, device=student_logits.device)
        total = torch.zeros((), dtype=precision, device=student_logits.device)
        for rows in blocks(student_logits):
            student = F.log_softmax(_scaled(student_logits[rows].to(precision), temperature), dim=-1)
            teacher = F.log_softmax(_scaled(teacher_logits[rows].to(precision), temperature), dim=-1)
            loss, gradient[rows] = kernel(student, teacher)
            total += loss
        ctx.gradient, ctx.temperature = gradient, temperature
        return total * temperature**2

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # scaled in place, so it is used once
        return gradient.mul_(upstream[0] * ctx.temperature), None, None, None


def blocks(logits: Tensor) -> Iterator[slice]:
    """Slices of rows, one block at a time; on an accelerator all rows are one block."""
    positions, vocabulary = logits.shape
    rows = max(1, BLOCK // vocabulary) if logits.device.type == "cpu" else max(1, positions)
    for start in range(0, positions, rows):
        yield slice(start, start + rows)


def of_tokens(logits: Tensor, tokens: int) -> Tensor:
    """Logits (positions, tokens), without those of padding. A slice without effect is avoided, because its backward pass copies all."""
    return logits if logits.shape[-1] == tokens else logits[:, :tokens]


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature
