"""The learning-rate schedule of a training step."""

from __future__ import annotations

import math


def warmup_stable_decay(step: int, steps: int, warmup: float, decay: float) -> float:
    """Factor of the peak learning rate at `step` (from 0) of `steps`: linear up, constant, linear down to zero.

    Source: Hu et al. 2024, "MiniCPM", arXiv 2404.06395, section 4 (with a linear last phase, as Hägele et al. 2024,
    arXiv 2405.18392 recommend). `warmup` and `decay` are shares of all steps.
    """
    up, down = warmup * steps, decay * steps
    rising = (step + 1) / up if up > 0 else 1.0
    falling = (steps - step) / down if down > 0 else 1.0
    return min(1.0, rising, falling)


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at `step` (from 0) of `steps`: linear up, then half a cosine down to (nearly) zero.

    Source: Loshchilov and Hutter 2016, "SGDR", arXiv 1608.03983, without restarts. `warmup` is a share of all steps.
    """
    up = warmup * steps
    rising = (step + 1) / up if up > 0 else 1.0
    falling = 0.5 * (1 + math.cos(math.pi * max(0.0, step - up) / (steps - up)))
    return min(1.0, rising, falling)
