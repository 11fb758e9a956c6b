"""From logits to what is asked of them: the log-probability of a target token, and whether it is the likeliest one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compresslab.algorithms.divergence import blocks


def target_scores(logits: Tensor, row: Tensor, target: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability and greediness of each target.

    Args:
        logits: (rows, vocabulary). row: (targets,) which row each target is asked of. target: (targets,) token ids.
    """
    target, index = target.to(logits.device), row.to(logits.device)
    norm, largest = (torch.cat(parts) for parts in zip(*(_norm_and_largest(logits[rows]) for rows in blocks(logits)), strict=True))
    wanted = logits[index, target].float()
    greedy = wanted == largest[index]
    # Of equally likely tokens the first is the greedy one.
    greedy[greedy.clone()] = logits[index[greedy]].max(-1).indices == target[greedy]
    return (wanted - norm[index]).cpu().double().numpy(), greedy.cpu().numpy()


def _norm_and_largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp and largest logit of each row, in float32. A third of the time of `logsumexp` and `argmax`."""
    wide = logits.to(torch.float32, copy=True)
    largest = wide.amax(-1, keepdim=True)
    return wide.sub_(largest).exp_().sum(-1).log_().add_(largest[:, 0]), largest[:, 0]
