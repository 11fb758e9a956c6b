"""The two curves of every reference, as functions of arrays.

Loss: L(N, D) = E + a N^-alpha + b D^-beta, N in 1e9 parameters (all but a pure input embedding), D in 1e11 training tokens.
E = 0 is the Densing Law's form (Xiao et al., arXiv 2412.04315), E > 0 that of Hoffmann et al. 2022 and of the OLMo
ladder (Bhagia et al., arXiv 2412.04403).

Score: S(L) = d + (top - d) / (1 + exp(gamma (L - l))) with gamma > 0 and top = c + d: S falls from top to d as the loss
grows. The Densing paper writes c / (1 + exp(-gamma (L - l))) + d, so its gamma is the negative of this one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_UNIT = 1e9
D_UNIT = 1e11

LOSS_COLUMNS = ("E", "ln_a", "ln_alpha", "ln_b", "ln_beta")
SCORE_COLUMNS = ("top", "gamma", "l", "d")

NO_DATA_TERM = -700.0
"""ln b of a law without a data term: e^-700 is 1e-304. JSON has no minus infinity."""

SMALLEST_LOSS = 1e-12
"""What is left of a loss at which no size is read: its powers leave the range of floating point."""

NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-12
"""At most so many steps, in ln N; five to eight are needed."""


def loss_law(theta: Array, n: Array, d: Array) -> Array:
    """L(N, D) for theta = (E, ln a, ln alpha, ln b, ln beta), n in 1e9 and d in 1e11."""
    e, ln_a, ln_alpha, ln_b, ln_beta = theta
    law: Array = e + np.exp(ln_a - np.exp(ln_alpha) * np.log(n)) + np.exp(ln_b - np.exp(ln_beta) * np.log(d))
    return law


def score_link(phi: Array, loss: Array) -> Array:
    """S(L) for phi = (top, gamma, l, d), where top = c + d is the ceiling and d the lower end."""
    top, gamma, middle, bottom = phi
    link: Array = bottom + (top - bottom) / (1 + np.exp(gamma * (loss - middle)))
    return link


def ln_n_of_loss(theta: Array, loss: Array, d: Array | float) -> Array:
    """ln N (N in 1e9) at which the law reaches `loss` after d (1e11) tokens; +inf for a loss that no size reaches.

    Args:
        theta: (..., 5) rows of coefficients, broadcast against `loss`.
    """
    e, ln_a, ln_alpha, ln_b, ln_beta = np.moveaxis(theta, -1, 0)
    remaining = loss - e - np.exp(ln_b - np.exp(ln_beta) * np.log(d))
    reachable = remaining > 0
    return np.where(reachable, (ln_a - np.log(np.where(reachable, remaining, 1.0))) / np.exp(ln_alpha), np.inf)


def ln_n_along(theta: Array, loss: Array, tokens_per_parameter: float) -> Array:
    """The same where D grows with N: ln N (N in 1e9) at which a model with so many tokens for each parameter reaches `loss`.

    With x = ln N the law is E + exp(ln a - alpha x) + exp(ln b - beta (x + ln k)), k tokens a parameter in the units of D and N. It is
    convex and falls, so Newton's steps from a size that is too small rise to the solution. Each of the two terms alone gives such a size.
    """
    e, ln_a, ln_alpha, ln_b, ln_beta = np.moveaxis(theta, -1, 0)
    alpha, beta = np.exp(ln_alpha), np.exp(ln_beta)
    ln_b_of_n = ln_b - beta * np.log(tokens_per_parameter * N_UNIT / D_UNIT)
    remaining = np.asarray(loss - e, dtype=np.float64)
    reachable = (remaining > SMALLEST_LOSS) & np.isfinite(remaining)
    ln_left = np.log(np.where(reachable, remaining, 1.0))
    x = np.maximum((ln_a - ln_left) / alpha, (ln_b_of_n - ln_left) / beta)
    for _ in range(NEWTON_STEPS):
        of_size, of_data = np.exp(ln_a - alpha * x), np.exp(ln_b_of_n - beta * x)
        # In logarithms the curve is nearly straight, so few steps suffice; it stays convex, so none passes the solution.
        step = (np.log(of_size + of_data) - ln_left) * (of_size + of_data) / (alpha * of_size + beta * of_data)
        x = x + step
        if not np.any(np.abs(step) > NEWTON_TOLERANCE):
            break
    return np.where(reachable, x, np.where(np.isposinf(remaining), -np.inf, np.inf))


def loss_of_score(phi: Array, score: Array) -> Array:
    """The loss at which the link gives `score`: +inf at or below its lower end, -inf at or above its ceiling.

    Args:
        phi: (..., 4) rows of coefficients, broadcast against `score`.
    """
    top, gamma, middle, bottom = np.moveaxis(phi, -1, 0)
    inside = (score > bottom) & (score < top)
    odds = np.where(inside, (top - score) / np.where(inside, score - bottom, 1.0), 1.0)
    return np.where(inside, middle + np.log(odds) / gamma, np.where(score <= bottom, np.inf, -np.inf))


def r_squared(predicted: Array, measured: Array) -> float:
    """Share of the variance of `measured` that `predicted` explains; 0 if the variance is 0."""
    if np.ptp(measured) == 0:
        return 0.0
    return float(1 - np.sum((predicted - measured) ** 2) / np.sum((measured - measured.mean()) ** 2))


def share_logit(scores: Array, chance: Array | float) -> Array:
    """Logit of (score - chance) / (1 - chance), clipped so that a score at chance stays finite."""
    share = np.clip((scores - chance) / (1 - chance), 1e-3, 1 - 1e-3)
    return np.asarray(np.log(share / (1 - share)))


def interpolated_ln_params(points: Array, chance: float, score: Array) -> Array:
    """ln N at which straight lines between a family's models, in ln N and logits, reach `score`; NaN outside the scores of the models.

    Args:
        points: (models, 2) N and score, by rising N. A larger model with a lower score is set equal to the one before it.
    """
    logits = np.maximum.accumulate(share_logit(points[:, 1], chance)) + np.arange(len(points)) * 1e-9
    return np.asarray(np.interp(share_logit(score, chance), logits, np.log(points[:, 0]), left=np.nan, right=np.nan))
