"""References from published scores: a family of models on every task that enough of them have scores of in one evaluation.

A published table has no losses, so the loss stays latent: L(N, D) = N^-alpha + b D^-beta, one for all benchmarks, and each
benchmark's score is linked to it with its known chance level and ceiling (see `laws`). The scale of L is free and set by a = 1.
alpha is common to the benchmarks and chosen among `ALPHAS` by leaving out each model in turn; with a small alpha the score is a
logistic curve in ln N. A family with one token budget has no data term (b = 0): its N_hat is that of a model of the family with
the family's training, for any D0. A family with several has beta = 0.28 (Hoffmann et al. 2022) and b fitted.

A task is a benchmark in one setting (`catalog.published_settings`), and its scores come from one evaluation, the first of the family's
that has at least `MIN_MODELS` sizes. A model that lacks it (14B on HellaSwag) is left out of that task's link.

Interpolation between the family's models predicts a left-out model worse (`experiments/ruler/forms.py family`). `interpolated` in
the record is its error, and the table of robustness shows the ratio under it (`interpolated_ln_params`).

Resamples are a Bayesian bootstrap by model, joined with the sampling error of its scores (binomial, over the benchmark's items);
alpha is chosen again in each, so that the intervals contain the uncertainty of the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compresslab.catalog.published_settings import TASKS
from compresslab.density.references.build import RESAMPLES, SEED, rounded
from compresslab.density.references.family_reach import family_reach
from compresslab.density.references.family_scores import FamilyScores
from compresslab.density.references.laws import (
    D_UNIT,
    LOSS_COLUMNS,
    N_UNIT,
    NO_DATA_TERM,
    SCORE_COLUMNS,
    Array,
    r_squared,
    score_link,
    share_logit,
)
from compresslab.density.references.left_out import in_file

ALPHAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
BETA = 0.28
DATA_TERMS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Values of b that are tried if token budgets differ, in units of the loss of a 1e9-parameter model."""

MIN_STANDARD_ERROR = 0.02
"""Minimum standard error of a score in the fit. Prompts and harness change a score of 14,042 items by more than its binomial 0.4%."""


SOFT = 2.0
"""A miss of more standard errors than this counts less than its square."""

ITERATIONS = 40


@dataclass(frozen=True)
class Curves:
    """A fitted family: alpha and b of the latent loss, (tasks, 2) links (gamma, l), and the weighted sum of squared misses."""

    alpha: float
    b: float
    links: Array
    error: float


def latent_loss(n: Array, d: Array, alpha: float, b: float) -> Array:
    """L = N^-alpha + b D^-beta, n in 1e9 and d in 1e11."""
    loss: Array = n**-alpha + b * d**-BETA
    return loss


def fit_links(loss: Array, read: FamilyScores, spread: Array, weight: Array) -> tuple[Array, Array]:
    """Links for several latent losses at once: (losses, tasks, 2) of gamma and l, and (losses,) the weighted sums of squared misses.

    Each link is a fit of two coefficients by Levenberg and Marquardt with the soft L1 loss of `scipy.optimize.least_squares`
    (f_scale = `SOFT`). All are fitted together, because a reference takes a million of them.

    Args:
        loss: (losses, models).
    """
    there = ~np.isnan(read.scores)
    chance, x = read.chances[None], loss[:, None, :]
    score, root = np.where(there, read.scores, 0.5)[None], np.where(there, np.sqrt(weight) / np.where(there, spread, 1.0), 0.0)[None]
    # The initial values are a straight line through the logits; clipping keeps a score at chance finite.
    logits = np.log(1 / np.clip((score - chance) / (1 - chance), 0.01, 0.99) - 1)
    known = np.broadcast_to(there[None], (len(loss), *there.shape))
    count = known.sum(axis=-1)
    middle_x, middle_y = (np.where(known, value, 0.0).sum(axis=-1) / count for value in (x + 0 * logits, logits + 0 * x))
    dx = np.where(known, x - middle_x[..., None], 0.0)
    slope = (dx * (logits - middle_y[..., None])).sum(axis=-1) / (dx**2).sum(axis=-1)
    gamma = np.maximum(slope, 0.05)
    state = np.stack([np.log(gamma), middle_x - middle_y / gamma], axis=-1)

    def misses(state: Array) -> tuple[Array, Array, Array]:
        """Residuals, the share above chance, and the cost of each link."""
        share = 1 / (1 + np.exp(np.clip(np.exp(state[..., :1]) * (x - state[..., 1:]), -500, 500)))
        residuals = (chance + (1 - chance) * share - score) * root
        return residuals, share, SOFT**2 * (np.sqrt(1 + (residuals / SOFT) ** 2) - 1).sum(axis=-1)

    residuals, share, cost = misses(state)
    damping = np.full(cost.shape, 1e-3)
    for _ in range(ITERATIONS):
        gamma = np.exp(state[..., :1])
        by_logit = -(1 - chance) * share * (1 - share) * root
        jacobian = np.stack([by_logit * gamma * (x - state[..., 1:]), -by_logit * gamma], axis=-1)
        robust = 1 / np.sqrt(1 + (residuals / SOFT) ** 2)
        gradient = np.einsum("gtmi,gtm->gti", jacobian, robust * residuals)
        normal = np.einsum("gtmi,gtm,gtmj->gtij", jacobian, robust, jacobian)
        normal += np.eye(2) * (damping[..., None, None] * normal + 1e-12)
        moved = state - np.linalg.solve(normal, gradient[..., None])[..., 0]
        found = misses(moved)
        better = found[2] < cost
        state = np.where(better[..., None], moved, state)
        residuals, share = (np.where(better[..., None], new, old) for new, old in zip(found[:2], (residuals, share), strict=True))
        cost = np.where(better, found[2], cost)
        damping = np.where(better, damping / 5, np.minimum(damping * 5, 1e12))
    links = np.stack([np.exp(state[..., 0]), state[..., 1]], axis=-1)
    return links, 2 * cost.sum(axis=-1)


def fit_family(read: FamilyScores, weight: Array, alphas: Sequence[float] = ALPHAS) -> Curves:
    """The best fit over `alphas`, and over `DATA_TERMS` if token budgets differ. `weight`: (models,)."""
    spread = np.maximum(read.errors, MIN_STANDARD_ERROR)
    terms = DATA_TERMS if len(np.unique(read.d)) > 1 else (0.0,)
    forms = [(alpha, b) for alpha in alphas for b in terms]
    links, errors = fit_links(np.stack([latent_loss(read.n, read.d, alpha, b) for alpha, b in forms]), read, spread, weight)
    best = int(np.argmin(errors))
    return Curves(*forms[best], links[best], float(errors[best]))


def predict(curves: Curves, read: FamilyScores, n: Array, d: Array) -> Array:
    """(tasks, models) scores."""
    loss = latent_loss(n, d, curves.alpha, curves.b)
    rows = [
        score_link(np.array([1.0, gamma, middle, chance]), loss)
        for (gamma, middle), chance in zip(curves.links, read.chances[:, 0], strict=True)
    ]
    return np.stack(rows)


def left_out_error(read: FamilyScores, alphas: Sequence[float]) -> float:
    """Root mean square, in logits, of the misses on left-out models: each in turn, except the smallest and the largest."""
    misses = []
    for i in range(1, len(read.n) - 1):
        rest = read.without(i)
        curves = fit_family(rest, np.ones(len(rest.n)), alphas)
        predicted = predict(curves, read, read.n[i : i + 1], read.d[i : i + 1])
        misses.append(share_logit(predicted, read.chances) - share_logit(read.scores[:, i : i + 1], read.chances))
    return float(np.sqrt(np.nanmean(np.square(misses))))


def interpolation_error(read: FamilyScores) -> float:
    """The same for straight lines between neighbours, in ln N and logits."""
    order = np.argsort(read.n)
    x, y = np.log(read.n[order]), share_logit(read.scores[:, order], read.chances)
    misses = []
    for i in range(1, len(x) - 1):
        for row in y:
            rest = (np.arange(len(x)) != i) & ~np.isnan(row)
            misses.append(np.interp(x[i], x[rest], row[rest]) - row[i])
    return float(np.sqrt(np.nanmean(np.square(misses))))


def build_family(read: FamilyScores, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit a family, find out how far from its sizes it can be read, and return the content of the reference's file."""
    return fitted(read, resamples) | in_file(family_reach(read, fitted))


def fitted(read: FamilyScores, resamples: int) -> dict[str, Any]:
    """The content of a reference's file but for its reach, fitted to some scores of a family."""
    n, d, scores = read.n, read.d, read.scores
    by_alpha = {alpha: left_out_error(read, [alpha]) for alpha in ALPHAS}
    alpha = min(by_alpha, key=by_alpha.__getitem__)
    curves = fit_family(read, np.ones(len(n)), [alpha])
    rng = np.random.default_rng(SEED)
    drawn = []
    for _ in range(resamples):
        weight = rng.exponential(size=len(n))
        noisy = replace(read, scores=np.clip(scores + rng.normal(size=scores.shape) * read.errors, 1e-3, 1 - 1e-3))
        # All alphas within a tenth of the best error are candidates, so that the choice is part of the uncertainty.
        drawn.append(fit_family(noisy, weight, [a for a in ALPHAS if by_alpha[a] <= 1.1 * by_alpha[alpha]]))
    predicted = predict(curves, read, n, d)
    tasks: dict[str, Any] = {}
    for i, task in enumerate(read.tasks):
        there, chance = ~np.isnan(scores[i]), TASKS[task].chance
        own = int(there.sum())
        tasks[task] = {
            "origin": f"{TASKS[task].benchmark}, {TASKS[task].setting}; {own} models",
            "latent": task,
            "chance": chance,
            "loss": _law(curves),
            "score": _link(curves, i, chance),
            "r2_loss": None,
            "r2_score": round(r_squared(predicted[i, there], scores[i, there]), 5),
            "loss_range": None,
            "score_range": [float(scores[i, there].min()), float(scores[i, there].max())],
            "loss_left": None,
            "score_left": rounded(_residuals(n, scores[i] - predicted[i]) * np.sqrt(own / (own - 2.5))),
            "held_out": {},
            "points": [
                [float(f"{size * N_UNIT:.7g}"), float(score)] for size, score in sorted(zip(n[there], scores[i, there], strict=True))
            ],
            "loss_resamples": [_law(draw) for draw in drawn],
            "score_resamples": [_link(draw, i, chance) for draw in drawn],
        }
    has_several_budgets = len(np.unique(d)) > 1
    return {
        "name": read.name,
        "source": f"{read.what}; scores as published: {'; '.join(read.sources)}",
        "kind": "family",
        "unit": "latent",
        "convention": "L = N^-alpha + b D^-0.28, latent; S = d + (top - d) / (1 + exp(gamma (L - l))); N in 1e9 counted parameters",
        "loss_columns": list(LOSS_COLUMNS),
        "score_columns": list(SCORE_COLUMNS),
        "parameters_range": [float(n.min() * N_UNIT), float(n.max() * N_UNIT)],
        "tokens_range": [float(d.min() * D_UNIT), float(d.max() * D_UNIT)],
        "runs": len(n),
        "seed": SEED,
        "form": {
            "chosen": f"alpha = {alpha}" + (f", b = {curves.b}" if has_several_budgets else ", no data term: one token budget"),
            "rule": "root mean square in logits over left-out models, the smallest and the largest always kept",
            "curve": round(by_alpha[alpha], 5),
            "interpolated": round(interpolation_error(read), 5),
        },
        "tasks": tasks,
    }


def _residuals(n: Array, left: Array) -> Array:
    """A residual for every model. A model without a score has that of its neighbour in size, so that index i is one model in all tasks."""
    there = ~np.isnan(left)
    nearest = [int(np.argmin(np.where(there, np.abs(np.log(n / size)), np.inf))) for size in n]
    return left[nearest]


def _law(curves: Curves) -> list[float]:
    return rounded(np.array([0.0, 0.0, np.log(curves.alpha), np.log(curves.b) if curves.b else NO_DATA_TERM, np.log(BETA)]))


def _link(curves: Curves, row: int, chance: float) -> list[float]:
    return rounded(np.array([1.0, *curves.links[row], chance]))
