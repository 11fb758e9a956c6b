"""Forward Kullback-Leibler divergence from the teacher's next-token distribution to the student's."""

from __future__ import annotations

from torch import Tensor

from compresslab.algorithms.divergence import divergence


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum over positions of KL(teacher || student) in nats, scaled by temperature squared.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). No gradient flows to the teacher.
    """
    return divergence(student_logits, teacher_logits, temperature, _kernel)


def _kernel(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """With p of the teacher and q of the student: the sum of p log(p/q), whose gradient to the logits is q - p."""
    p = teacher.exp()
    loss = teacher.sub_(student).mul_(p).sum()
    return loss, student.exp_().sub_(p)
