"""Does the interval of r from published scores cover the truth? Simulated pairs of models with 2 to 9 benchmarks that disagree.

python experiments/ruler/synthesis.py                 # both parts, some minutes
python experiments/ruler/synthesis.py --part scores --count 500

- estimates: ln r of each benchmark is drawn with a known error and a heterogeneity; the shipped interval against others of the literature.
- scores: published scores of a parent and a child are drawn on one of the resampled fits of qwen2.5 (so that the shipped fit is wrong by
  as much as it may be), with the items' binomial error and a heterogeneity between benchmarks, and read as a study reads them. With
  "scatter" each model also strays from the curve as one of Qwen2.5's own does, which the study allows for.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from compresslab.catalog.published_scores import weights
from compresslab.catalog.published_settings import TASKS
from compresslab.density import Measured, Reference, student
from compresslab.density.references.laws import D_UNIT, N_UNIT, loss_law, score_link
from compresslab.density.sample import prepare
from compresslab.density.synthesis import mean_error, paule_mandel, weigh
from compresslab.recipe.schema import DensityConfig

Array = NDArray[np.float64]
NUMBERS = (2, 3, 4, 5, 6, 7, 8, 9)
HETEROGENEITIES = (0.0, 0.2, 0.3, 0.4)
ERRORS = {"alike": (0.10, 0.15, 0.12, 0.30, 0.20, 0.20, 0.15, 0.15, 0.25), "unlike": (0.03, 0.08, 0.06, 0.50, 0.12, 0.15, 0.10, 0.10, 0.30)}
"""Standard errors of ln r by benchmark. Unlike: from 14,042 items of MMLU to 164 of HumanEval in a quantized copy."""

BUDGET = 1e12


@cache
def t_value(degrees: float) -> float:
    """The 97.5% quantile of Student's t."""
    return float(student.quantiles(np.array([0.975]), degrees)[0])


def shipped(y: Array, error: Array) -> tuple[float, float]:
    """Centre and half width of the study's own interval."""
    weight, _ = weigh(y, error**2)
    variance, degrees = mean_error(y, error**2, weight, 0.0)
    return float(weight @ y), math.sqrt(variance) * t_value(degrees)


def hartung_knapp(y: Array, error: Array, least: float) -> tuple[float, float]:
    """Paule and Mandel's tau^2 with Hartung and Knapp's interval, q at least `least`."""
    weight = 1 / (error**2 + paule_mandel(y, error**2))
    mean, k = float(weight @ y / weight.sum()), len(y)
    q = float(weight @ (y - mean) ** 2) / (k - 1)
    return mean, t_value(k - 1) * math.sqrt(max(q, least) / weight.sum())


def birge(y: Array, error: Array) -> tuple[float, float]:
    """Weights by precision, widened by the Birge ratio."""
    weight = error**-2
    mean = float(weight @ y / weight.sum())
    ratio = math.sqrt(float(weight @ (y - mean) ** 2) / (len(y) - 1))
    return mean, 1.96 * max(1.0, ratio) / math.sqrt(weight.sum())


RULES: dict[str, Callable[[Array, Array], tuple[float, float]]] = {
    "shipped": shipped,
    "Hartung-Knapp": lambda y, error: hartung_knapp(y, error, 0.0),
    "Hartung-Knapp, q >= 1": lambda y, error: hartung_knapp(y, error, 1.0),
    "precision and Birge": birge,
}


def estimates(count: int) -> Iterator[str]:
    """Coverage in percent by rule, errors and heterogeneity, one column for each number of benchmarks."""
    rng = np.random.default_rng(0)
    for kind, values in ERRORS.items():
        for heterogeneity in HETEROGENEITIES:
            covered: dict[str, list[float]] = {rule: [] for rule in RULES}
            for k in NUMBERS:
                hits = dict.fromkeys(RULES, 0)
                for _ in range(count):
                    error = rng.permutation(values)[:k]
                    y = rng.normal(0, heterogeneity, k) + rng.normal(size=k) * error
                    for rule, interval in RULES.items():
                        centre, half = interval(y, error)
                        hits[rule] += abs(centre) <= half
                for rule, found in hits.items():
                    covered[rule].append(100 * found / count)
            for rule, row in covered.items():
                yield f"| {kind} | {heterogeneity} | {rule} | {' | '.join(f'{value:.1f}' for value in row)} |"


def simulate(rng: np.random.Generator, reference: Reference, tasks: Sequence[str], heterogeneity: float, scatter: bool) -> list[Measured]:
    """A parent and a child with published scores; ln of their N_hat ratio on an average benchmark is ln(1/2)."""
    row = int(rng.integers(reference.resamples)) + 1
    size, shape = weights("Qwen2.5-7B")
    middle = math.log(rng.uniform(3e9, 2e10))
    models: list[Measured] = []
    for name, shift in (("base", 0.0), ("child", -math.log(2))):
        run, published = rng.integers(reference.runs), {}
        for task in tasks:
            fit = reference.tasks[task]
            assert fit.score is not None
            own = shift + (rng.normal(0, heterogeneity) if name == "child" else 0.0)
            score = float(_score(fit.loss[row], fit.score[row], middle + own))
            score += float(fit.score_residuals[run]) if scatter else 0.0
            published[task] = float(rng.binomial(TASKS[task].items, np.clip(score, 0, 1))) / TASKS[task].items
        models.append(
            Measured(name=name, parent="" if name == "base" else "base", root="base", size=size, shape=shape, published=published)
        )
    return models


def _score(loss: Array, link: Array, ln_params: float) -> Array:
    return score_link(link, loss_law(loss, np.array(math.exp(ln_params) / N_UNIT), np.array(BUDGET / D_UNIT)))


def scores(count: int) -> Iterator[str]:
    """Coverage of r and of the prediction interval for one more benchmark, and median width of r's interval, from simulated scores."""
    rng, reference = np.random.default_rng(1), Reference.load("qwen2.5")
    truth = -math.log(2)
    for scatter in (True, False):
        for heterogeneity in HETEROGENEITIES:
            covered, predicted, widths = [], [], []
            for k in NUMBERS:
                hits, ahead, width = 0, 0, []
                for i in range(count):
                    tasks = [str(task) for task in rng.permutation(list(reference.tasks))[:k]]
                    variants = simulate(rng, reference, tasks, heterogeneity, scatter)
                    study = prepare(variants, DensityConfig(reference="qwen2.5", resamples=400, seed=i), [])
                    found = study.synthesis(study.ruler(reference, BUDGET), "child", "base", tasks, "score")
                    if found is None:
                        continue
                    one = found.mean.interval()
                    hits += math.log(one.low) <= truth <= math.log(one.high) if one.low > 0 else truth <= math.log(one.high)
                    width.append(math.log(one.high / one.low) if one.low > 0 else math.inf)
                    if found.prediction is not None:
                        next_one = found.prediction.interval()
                        ahead += math.log(next_one.low) <= truth + rng.normal(0, heterogeneity) <= math.log(next_one.high)
                covered.append(100 * hits / len(width))
                predicted.append(100 * ahead / len(width))
                widths.append(math.exp(float(np.median(width))))
            label = f"{'scatter' if scatter else 'no scatter'} | {heterogeneity}"
            for what, row in (("r", covered), ("one more benchmark", predicted), ("factor from low to high", widths)):
                yield f"| {label} | {what} | {' | '.join('–' if not value else f'{value:.1f}' for value in row)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("estimates", "scores", "both"), default="both")
    parser.add_argument("--count", type=int, default=500, help="simulated pairs in each cell")
    given = parser.parse_args()
    for part, heads in ((estimates, "errors | heterogeneity | rule"), (scores, "models | heterogeneity | what")):
        if given.part in (part.__name__, "both"):
            print(f"| {heads} | {' | '.join(map(str, NUMBERS))} |\n|{' --- |' * (3 + len(NUMBERS))}")
            for line in part(given.count):
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()
