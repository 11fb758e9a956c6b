"""Coarse distributions: the probabilities of some tokens, and the sum of all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compresslab.algorithms.divergence import blocks


def coarse_logits(logits: Tensor, tokens: Tensor) -> Tensor:
    """Logits (positions, k + 1) of the k tokens and, last, of "any other token".

    Their softmax is the full softmax summed over these k + 1 events. A divergence between two distributions reduced
    in the same way is at most that of the full ones (the data-processing inequality), and nearly equal if the k tokens
    have nearly all of the probability.

    Args:
        logits: (positions, vocabulary). tokens: (positions, k) different token ids, with k below the vocabulary's size.
    """
    coarse: Tensor = _Coarse.apply(logits, tokens)  # type: ignore[no-untyped-call]
    return coarse


class _Coarse(torch.autograd.Function):
    """The logit of the other tokens is a log-sum-exp, whose gradient is distributed over them by their share in the sum."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        precision = torch.promote_types(logits.dtype, torch.float32)
        chosen = logits.gather(1, tokens).to(precision)
        shares = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        rest = torch.empty(logits.shape[0], 1, dtype=precision, device=logits.device)
        for rows in blocks(logits):
            others = logits[rows].to(precision, copy=True).scatter_(1, tokens[rows], -torch.inf)
            rest[rows] = torch.logsumexp(others, dim=-1, keepdim=True)
            shares[rows] = others.sub_(rest[rows]).exp_()
        ctx.shares, ctx.tokens = shares, tokens
        return torch.cat([chosen, rest], dim=1)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None]:
        gradient, ctx.shares = ctx.shares, None  # scaled in place, so it is used once
        for rows in blocks(gradient):
            gradient[rows] = gradient[rows].to(upstream[0].dtype).mul_(upstream[0][rows, -1:])
        return gradient.scatter_(1, ctx.tokens, upstream[0][:, :-1].to(gradient.dtype)), None
