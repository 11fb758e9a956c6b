"""References from published scores: a family of models on the Densing paper's five benchmarks.

A published table has no losses, so the loss stays latent: L(N, D) = N^-alpha + b D^-beta, one for all benchmarks, and each
benchmark's score is linked to it with its known chance level and ceiling (see `laws`). The scale of L is free and set by a = 1.
alpha is common to the benchmarks and chosen among `ALPHAS` by leaving out each model in turn; with a small alpha the score is a
logistic curve in ln N. A family with one token budget has no data term (b = 0): its N_hat is that of a model of the family with
the family's training, for any D0. A family with several has beta = 0.28 (Hoffmann et al. 2022) and b fitted.

Interpolation between the family's models predicts a left-out model worse (Qwen2.5, root mean square in
logits, `experiments/ruler/forms.py family`: 0.14 for the curve, 0.18 for straight lines, 0.21 for PCHIP). `interpolated` in
the record is its error, and the table of robustness shows the ratio under it (`interpolated_ln_params`).

Resamples are a Bayesian bootstrap by model, joined with the sampling error of its scores (binomial, over the benchmark's items);
alpha is chosen again in each, so that the intervals contain the uncertainty of the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from compresslab.catalog.published_scores import BENCHMARKS, scores_of, tables, weights
from compresslab.density.references.build import RESAMPLES, SEED, rounded
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
from compresslab.errors import BadInput

ALPHAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
BETA = 0.28
DATA_TERMS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Values of b that are tried if token budgets differ, in units of the loss of a 1e9-parameter model."""

MIN_STANDARD_ERROR = 0.02
"""Minimum standard error of a score in the fit. Prompts and harness change a score of 14,042 items by more than its binomial 0.4%."""


@dataclass(frozen=True)
class Family:
    """The models of a family as (model, table, training tokens)."""

    name: str
    what: str
    models: tuple[tuple[str, str, float], ...]


QWEN = Family(
    "qwen2.5",
    "Qwen2.5 base models, 0.5B to 72B, each at up to 18T tokens",
    tuple(
        (f"Qwen2.5-{size}B", f"Qwen2.5-blog-base-{table}", 18e12)
        for size, table in (("0.5", 4), ("1.5", 4), ("3", 4), ("7", 3), ("14", 2), ("32", 2), ("72", 1))
    ),
)
LLAMA = Family(
    "llama-1-2",
    "Llama 1 (7B to 65B, 1.0T and 1.4T tokens) and Llama 2 (7B to 70B, 2.0T tokens)",
    tuple((f"Llama-{size}", "Llama2-paper", tokens) for size, tokens in (
        ("1-7B", 1.0e12), ("1-13B", 1.0e12), ("1-33B", 1.4e12), ("1-65B", 1.4e12),
        ("2-7B", 2e12), ("2-13B", 2e12), ("2-34B", 2e12), ("2-70B", 2e12),
    )),
)  # fmt: skip
FAMILIES = {family.name: family for family in (QWEN, LLAMA)}


@dataclass(frozen=True)
class Curves:
    """A fitted family: alpha and b of the latent loss, (benchmarks, 2) links (gamma, l), and the weighted sum of squared misses."""

    alpha: float
    b: float
    links: Array
    error: float


def latent_loss(n: Array, d: Array, alpha: float, b: float) -> Array:
    """L = N^-alpha + b D^-beta, n in 1e9 and d in 1e11."""
    loss: Array = n**-alpha + b * d**-BETA
    return loss


def read_family(family: Family) -> tuple[Array, Array, Array]:
    """Counted parameters (1e9), tokens (1e11) and scores (benchmarks, models) of a family.

    Raises:
        BadInput: a table has a gap.
    """
    n = np.array([weights(model)[0].counted / N_UNIT for model, _, _ in family.models])
    d = np.array([tokens / D_UNIT for _, _, tokens in family.models])
    rows = []
    for benchmark in BENCHMARKS:
        row = []
        for model, table, _ in family.models:
            by_benchmark = scores_of(model, table)
            if benchmark not in by_benchmark:
                raise BadInput(f"{table} has no {benchmark} of {model}, which the reference {family.name} needs")
            row.append(by_benchmark[benchmark].score)
        rows.append(row)
    return n, d, np.array(rows)


def errors_of(scores: Array) -> Array:
    """Standard error of each score: binomial over the benchmark's items. Shape (benchmarks, models)."""
    items = np.array([[count] for count, _ in BENCHMARKS.values()], dtype=np.float64)
    return np.sqrt(scores * (1 - scores) / items)


def fit_links(loss: Array, scores: Array, spread: Array, weight: Array) -> tuple[Array, float]:
    """(benchmarks, 2) of gamma and l for a given latent loss, and the weighted sum of squared misses."""
    links, error = [], 0.0
    for (_, chance), row, sd in zip(BENCHMARKS.values(), scores, spread, strict=True):
        # The initial values are a straight line through the logits; clipping keeps a score at chance finite.
        share = np.clip((row - chance) / (1 - chance), 0.01, 0.99)
        slope, intercept = np.polyfit(loss, np.log(1 / share - 1), 1)
        gamma = max(float(slope), 0.05)
        root = np.sqrt(weight) / sd

        def misses(x: Array, row: Array = row, chance: float = chance, root: Array = root) -> Array:
            residuals: Array = (score_link(np.array([1.0, np.exp(x[0]), x[1], chance]), loss) - row) * root
            return residuals

        solution = least_squares(misses, np.array([np.log(gamma), -float(intercept) / gamma]), loss="soft_l1", f_scale=2.0)
        links.append([float(np.exp(solution.x[0])), float(solution.x[1])])
        error += 2 * float(solution.cost)
    return np.array(links), error


def fit_family(n: Array, d: Array, scores: Array, weight: Array, alphas: Sequence[float] = ALPHAS) -> Curves:
    """The best fit over `alphas`, and over `DATA_TERMS` if token budgets differ. `weight`: (models,)."""
    spread = np.maximum(errors_of(scores), MIN_STANDARD_ERROR)
    terms = DATA_TERMS if len(np.unique(d)) > 1 else (0.0,)
    best = None
    for alpha in alphas:
        for b in terms:
            links, error = fit_links(latent_loss(n, d, alpha, b), scores, spread, weight)
            if best is None or error < best.error:
                best = Curves(alpha, b, links, error)
    assert best is not None, "at least one alpha"
    return best


def predict(curves: Curves, n: Array, d: Array) -> Array:
    """(benchmarks, models) scores."""
    loss = latent_loss(n, d, curves.alpha, curves.b)
    rows = [
        score_link(np.array([1.0, gamma, middle, chance]), loss)
        for (gamma, middle), (_, chance) in zip(curves.links, BENCHMARKS.values(), strict=True)
    ]
    return np.stack(rows)


def left_out_error(n: Array, d: Array, scores: Array, alphas: Sequence[float]) -> float:
    """Root mean square, in logits, of the misses on left-out models: each in turn, except the smallest and the largest."""
    misses = []
    for i in range(1, len(n) - 1):
        rest = np.arange(len(n)) != i
        curves = fit_family(n[rest], d[rest], scores[:, rest], np.ones(len(n) - 1), alphas)
        misses.append(_logit(predict(curves, n[i : i + 1], d[i : i + 1])) - _logit(scores[:, i : i + 1]))
    return float(np.sqrt(np.mean(np.square(misses))))


def interpolation_error(n: Array, scores: Array) -> float:
    """The same for straight lines between neighbours, in ln N and logits."""
    order = np.argsort(n)
    x, y = np.log(n[order]), _logit(scores[:, order])
    misses = []
    for i in range(1, len(n) - 1):
        rest = np.arange(len(n)) != i
        misses.append([np.interp(x[i], x[rest], row[rest]) - row[i] for row in y])
    return float(np.sqrt(np.mean(np.square(misses))))


def build_family(family: Family, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit a family and return the content of the reference's file."""
    n, d, scores = read_family(family)
    by_alpha = {alpha: left_out_error(n, d, scores, [alpha]) for alpha in ALPHAS}
    alpha = min(by_alpha, key=by_alpha.__getitem__)
    curves = fit_family(n, d, scores, np.ones(len(n)), [alpha])
    rng = np.random.default_rng(SEED)
    drawn = []
    for _ in range(resamples):
        weight = rng.exponential(size=len(n))
        noisy = np.clip(scores + rng.normal(size=scores.shape) * errors_of(scores), 1e-3, 1 - 1e-3)
        # All alphas within a tenth of the best error are candidates, so that the choice is part of the uncertainty.
        drawn.append(fit_family(n, d, noisy, weight, [a for a in ALPHAS if by_alpha[a] <= 1.1 * by_alpha[alpha]]))
    predicted = predict(curves, n, d)
    widening = np.sqrt(len(n) / (len(n) - 2.5))
    has_several_budgets = len(np.unique(d)) > 1
    tasks: dict[str, Any] = {
        benchmark: {
            "origin": benchmark,
            "latent": benchmark,
            "chance": chance,
            "loss": _law(curves),
            "score": _link(curves, i, chance),
            "r2_loss": None,
            "r2_score": round(r_squared(predicted[i], scores[i]), 5),
            "loss_range": None,
            "score_range": [float(scores[i].min()), float(scores[i].max())],
            "loss_left": None,
            "score_left": rounded((scores[i] - predicted[i]) * widening),
            "held_out": {},
            "points": [[float(f"{size * N_UNIT:.7g}"), float(score)] for size, score in sorted(zip(n, scores[i], strict=True))],
            "loss_resamples": [_law(draw) for draw in drawn],
            "score_resamples": [_link(draw, i, chance) for draw in drawn],
        }
        for i, (benchmark, (_, chance)) in enumerate(BENCHMARKS.items())
    }
    sources = dict.fromkeys(tables()[table][1] for _, table, _ in family.models)
    return {
        "name": family.name,
        "source": f"{family.what}; scores as published: {'; '.join(sources)}",
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
            "interpolated": round(interpolation_error(n, scores), 5),
        },
        "tasks": tasks,
    }


def _law(curves: Curves) -> list[float]:
    return rounded(np.array([0.0, 0.0, np.log(curves.alpha), np.log(curves.b) if curves.b else NO_DATA_TERM, np.log(BETA)]))


def _link(curves: Curves, row: int, chance: float) -> list[float]:
    return rounded(np.array([1.0, *curves.links[row], chance]))


def _logit(scores: Array) -> Array:
    """Logits of (benchmarks, models) scores."""
    return share_logit(scores, np.array([[chance] for _, chance in BENCHMARKS.values()]))
