"""Robust fits of the two curves: Huber's loss, several starts, analytic Jacobians, all tasks of a reference at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from compresslab.density.references.laws import NO_DATA_TERM, Array, loss_law, score_link

POOLING = 0.1
"""Spread of ln(alpha) and of ln(beta) over tasks that costs one unit of residual.

Thirty runs of one task hardly identify alpha, beta and E separately; seven tasks together do. The value was chosen inside the OLMo
ladder: predicting the 3.2B runs from the smaller ones misses by 1.4% (root mean square) at 0.1 and by 2.4% without pooling;
predicting the 190M runs from the larger ones by 2.3% and 2.7%. The long runs were also used for the choice: largest miss 8%
against 13%. Much stronger pooling (0.02) is worse on all three.
"""

HUBER = 1.5
"""Residuals of the loss law beyond this many scales count linearly."""

SCORE_HUBER = 0.01
"""Residuals of a score link beyond this count linearly."""

MIN_BUDGETS = 3
"""With fewer different token budgets b and beta are not identified, and the law depends on N alone."""


def huber(weights: Array) -> Any:
    """Huber's loss in the form of `least_squares`, with the weight of each residual applied outside the loss."""

    def loss(z: Array) -> Array:
        small = z <= 1
        root = np.sqrt(np.where(small, 1.0, z))
        value = np.where(small, z, 2 * root - 1)
        first = np.where(small, 1.0, 1 / root)
        second = np.where(small, 0.0, -0.5 / root**3)
        stacked: Array = np.stack([value, first, second]) * weights
        return stacked

    return loss


def fit_losses(
    data: Sequence[tuple[Array, Array, Array]],
    weights: Sequence[Array],
    scale: Array,
    starts: Sequence[Array],
    pooling: float = POOLING,
    *,
    irreducible: bool = True,
) -> Array:
    """Fit the loss law to all tasks at once, with pooled exponents.

    Args:
        data: for each task n (1e9), d (1e11) and loss of its runs, equally long.
        weights: for each task one weight per run.
        scale: (tasks,) typical size of ln(predicted / measured), which makes tasks comparable.
        starts: initial values, each (tasks, 5). The solution with the lowest cost is returned.
        pooling: see `POOLING`.
        irreducible: whether E may be above 0. E = 0 is the Densing paper's form.

    Returns:
        (tasks, 5) array of E, ln a, ln alpha, ln b, ln beta. A task with fewer than `MIN_BUDGETS` token budgets gets no data term.
    """
    k = len(data)
    logs = [(np.log(n), np.log(d), np.log(loss)) for n, d, loss in data]
    sizes = [len(n) for n, _, _ in data]
    centred = (np.eye(k) - 1 / k) / pooling

    def parts(x: Array) -> tuple[list[Array], Array]:
        theta = x.reshape(k, 5)
        residuals, jacobian, row = [], np.zeros((sum(sizes) + 2 * k, 5 * k)), 0
        for i, (ln_n, ln_d, ln_l) in enumerate(logs):
            e, ln_a, ln_alpha, ln_b, ln_beta = theta[i]
            alpha, beta = np.exp(ln_alpha), np.exp(ln_beta)
            size_term, data_term = np.exp(ln_a - alpha * ln_n), np.exp(ln_b - beta * ln_d)
            law = e + size_term + data_term
            residuals.append((np.log(law) - ln_l) / scale[i])
            columns = [np.ones_like(law), size_term, -size_term * alpha * ln_n, data_term, -data_term * beta * ln_d]
            jacobian[row : row + sizes[i], 5 * i : 5 * i + 5] = np.stack(columns, axis=1) / (law * scale[i])[:, None]
            row += sizes[i]
        residuals += [centred @ theta[:, 2], centred @ theta[:, 4]]
        jacobian[row : row + k, 2::5] = centred
        jacobian[row + k :, 4::5] = centred
        return residuals, jacobian

    def residuals_of(x: Array) -> Array:
        return np.concatenate(parts(x)[0])

    def jacobian_of(x: Array) -> Array:
        return parts(x)[1]

    lower = np.tile([0.0, -12.0, np.log(0.02), -12.0, np.log(0.02)], k)
    upper = np.tile([1e-6, 5.0, np.log(3.0), 5.0, np.log(3.0)], k)
    if irreducible:
        upper[0::5] = [loss.min() for _, _, loss in data]
    for i, (_, d, _) in enumerate(data):
        if len(np.unique(d)) < MIN_BUDGETS:
            lower[5 * i + 3], upper[5 * i + 3] = NO_DATA_TERM - 1e-6, NO_DATA_TERM + 1e-6
    margin = np.minimum(1e-9, (upper - lower) / 4)
    loss_function = huber(np.concatenate([*weights, np.ones(2 * k)]))
    solutions = [
        least_squares(
            residuals_of,
            np.clip(start.ravel(), lower + margin, upper - margin),
            jac=jacobian_of,
            bounds=(lower, upper),
            loss=loss_function,
            f_scale=HUBER,
            x_scale=np.tile([0.1, 1.0, 0.3, 1.0, 0.3], k),
        )
        for start in starts
    ]
    best = min(solutions, key=lambda solution: float(solution.cost))
    theta = np.asarray(best.x, dtype=np.float64).reshape(k, 5)
    if not irreducible:
        theta[:, 0] = 0.0
    return theta


def loss_starts(data: Sequence[tuple[Array, Array, Array]]) -> list[Array]:
    """Three initial values, which differ in the irreducible share of the lowest loss."""

    def guess(share: float, n: Array, loss: Array) -> list[float]:
        left = float(np.median(loss)) - share * float(loss.min())
        return [
            share * float(loss.min()),
            float(np.log(0.5 * left) + 0.4 * np.log(np.median(n))),
            np.log(0.4),
            np.log(0.4 * left),
            np.log(0.28),
        ]

    return [np.array([guess(share, n, loss) for n, _, loss in data]) for share in (0.2, 0.5, 0.75)]


def scales(thetas: Array, data: Sequence[tuple[Array, Array, Array]]) -> Array:
    """(tasks,) robust spread of ln(predicted / measured) of each task, at least 0.3%."""
    misses = [np.log(loss_law(theta, n, d) / loss) for theta, (n, d, loss) in zip(thetas, data, strict=True)]
    return np.array([max(1.4826 * float(np.median(np.abs(miss))), 0.003) for miss in misses])


def fit_link(loss: Array, score: Array, weights: Array, starts: Sequence[Array], ceiling: float = 1.0) -> Array:
    """Fit the score link of one task; returns (top, gamma, l, d).

    The ceiling is known: a right answer counts 1. The lower end d is fitted, at or below the lowest score in the data so that every model
    of the reference lies on its link. It is not set to chance, because small models score below chance on arc_challenge and
    openbookqa (length normalisation works against the right answer) and clearly above it on other tasks.
    Inside the OLMo ladder, predicting the scores of the 3.2B runs from the smaller ones, this form misses by 2.0% (root mean
    square); a fitted ceiling by 2.1%, d = chance by 3.7%, and links in ln L by 2.2 to 20% (`experiments/ruler/forms.py links`).
    """
    lower = np.array([ceiling - 1e-9, 0.1, min(-1.0, float(loss.min())), 0.0])
    upper = np.array([ceiling + 1e-9, 60.0, max(3.0, 2 * float(loss.max())), max(float(score.min()), 1e-6)])
    margin = np.minimum(1e-6, (upper - lower) / 4)

    def residuals(phi: Array) -> Array:
        return score_link(phi, loss) - score

    def jacobian(phi: Array) -> Array:
        top, gamma, middle, bottom = phi
        share = 1 / (1 + np.exp(gamma * (loss - middle)))
        slope = (top - bottom) * share * (1 - share)
        stacked: Array = np.stack([share, -slope * (loss - middle), slope * gamma, 1 - share], axis=1)
        return stacked

    solutions = [
        least_squares(
            residuals,
            np.clip(start, lower + margin, upper - margin),
            jac=jacobian,
            bounds=(lower, upper),
            loss=huber(weights),
            f_scale=SCORE_HUBER,
            x_scale=np.array([0.1, 3.0, 0.2, 0.1]),
        )
        for start in starts
    ]
    phi = np.asarray(min(solutions, key=lambda solution: float(solution.cost)).x, dtype=np.float64)
    phi[0] = ceiling
    return phi


def link_starts(loss: Array, ceiling: float = 1.0) -> list[Array]:
    """Initial values for `fit_link`: two slopes at three midpoints."""
    width = float(np.ptp(loss))
    middles = (0.8 * float(loss.min()), float(loss.min()), float(np.median(loss)))
    return [np.array([ceiling, slope / width, middle, 0.25]) for slope in (2.5, 6.0) for middle in middles]
