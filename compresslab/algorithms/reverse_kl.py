"""Reverse Kullback-Leibler divergence from the student's next-token distribution to the teacher's."""

from __future__ import annotations

from torch import Tensor

from compresslab.algorithms.divergence import divergence


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum over positions of KL(student || teacher) in nats, scaled by temperature squared.

    It penalizes tokens that are likely for the student and unlikely for the teacher (mode-seeking). Source: Gu
    et al. 2023, "MiniLLM", arXiv 2306.08543; computed here per token in closed form on the training text.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). No gradient flows to the teacher.
    """
    return divergence(student_logits, teacher_logits, temperature, _kernel)


def _kernel(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """With p of the teacher and q of the student: the sum of q log(q/p); the gradient is q (log(q/p) - the row's sum)."""
    q = student.exp()
    ratio = student.sub_(teacher)
    each = (q * ratio).sum(-1, keepdim=True)
    return each.sum(), ratio.sub_(each).mul_(q)
