"""Generalised Jensen-Shannon divergence between the teacher's and the student's next-token distributions."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from compresslab.algorithms.divergence import divergence


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, beta: float = 0.5) -> Tensor:
    """Sum over positions of beta KL(p || m) + (1 - beta) KL(q || m) in nats, scaled by temperature squared.

    p is the teacher, q the student, m = beta p + (1 - beta) q. Source: Agarwal et al. 2023, "On-Policy Distillation of Language Models"
    (GKD), arXiv 2306.13649, in its convention: divided by beta it becomes the forward KL as beta goes to 0, divided by 1 - beta the reverse
    KL as beta goes to 1. Like the paper, this function does not divide, so a beta near either end needs a larger learning rate.

    Args:
        student_logits, teacher_logits: (positions, vocabulary). No gradient flows to the teacher.
        beta: the teacher's share in the mixture, between 0 and 1.
    """
    return divergence(student_logits, teacher_logits, temperature, partial(_kernel, beta=beta))


def _kernel(student: Tensor, teacher: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The gradient is q (h - the row's sum of q h) with h = (1 - beta) log(q/m)."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    to_teacher = (teacher - mixture).mul_(teacher.exp_()).sum() * beta
    q = student.exp()
    h = student.sub_(mixture).mul_(1 - beta)
    each = (q * h).sum(-1, keepdim=True)
    return to_teacher + each.sum(), h.sub_(each).mul_(q)
