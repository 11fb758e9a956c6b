"""Forward Kullback-Leibler divergence from the teacher's next-token distribution to the student's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum over positions of KL(teacher || student) in nats, scaled by temperature squared.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; the square
    keeps the gradient's size independent of the temperature.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). Computed in float32 whatever comes in.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
