"""Skewed Kullback-Leibler divergence: forward KL to a mixture of student and teacher."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from compresslab.algorithms.divergence import divergence


def skewed_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, skew: float = 0.1) -> Tensor:
    """Sum over positions of KL(p || skew p + (1 - skew) q) in nats, scaled by temperature squared; p is the teacher, q the student.

    The mixture bounds the ratio by 1 / skew, and so the gradient where the student's probability is near 0 and the teacher's is not.
    Source: Ko et al. 2024, "DistiLLM", arXiv 2402.03898.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). No gradient flows to the teacher.
        skew: the teacher's share in the mixture, between 0 and 1.
    """
    return divergence(student_logits, teacher_logits, temperature, partial(_kernel, skew=skew))


def _kernel(student: Tensor, teacher: Tensor, skew: float) -> tuple[Tensor, Tensor]:
    """The gradient is q times the row's sum of w, minus w, with w = (1 - skew) p q / m."""
    mixture = torch.logaddexp(teacher + math.log(skew), student + math.log1p(-skew))
    weight = (teacher + student).sub_(mixture).exp_().mul_(1 - skew)
    loss = mixture.neg_().add_(teacher).mul_(teacher.exp_()).sum()
    return loss, student.exp_().mul_(weight.sum(-1, keepdim=True)).sub_(weight)
