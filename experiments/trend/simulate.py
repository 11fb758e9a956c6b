"""Whether the intervals of the rate of growth hold: histories whose growth is known, and those without any.

python experiments/trend/simulate.py                    # all dated models with the five benchmarks, 500 histories a rate
python experiments/trend/simulate.py --count 50
python experiments/trend/simulate.py --of mmlu          # MMLU alone; --of before: those from before ChatGPT

A history has as many releases as the real one (base models, on qwen2.5), drawn from it with replacement: their
dates, the sizes of their models and the errors of their readings. ln density by a benchmark is the benchmark's height, A t, effects of the
line of models, of its release, of the model and of the model on that benchmark, whose spreads are those of the real history around its
fitted line, plus the error of the score. A reading beyond what the reference is read at becomes a bound, as in the real history, and so
does the mean of a model with such a reading, which the quantile regression takes and the record setters are left without.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compresslab.catalog.published_scores import BENCHMARKS
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.trend.fits import (
    ABOVE,
    BELOW,
    PLAIN,
    YEAR,
    History,
    censored_fit,
    censored_slopes,
    frontier_fit,
    growth,
    quantile_slopes,
)
from compresslab.density.trend.models import dated_models, history_by_benchmark
from compresslab.density.trend.trend import CHATGPT_RELEASE

HERE = Path(__file__).parent
RATES = (0.0, 0.002, 0.004, 0.007)
BOOTSTRAPS = 200


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of ln density: between lines of models, between the releases of one, between the models of a release, and of a
    model between benchmarks, with the error of its score, for each benchmark."""

    line: float
    release: float
    model: float
    benchmarks: list[float]


def groups(labels: Array, values: Array) -> list[Array]:
    """The values of each label."""
    return [values[labels == label] for label in dict.fromkeys(labels)]


def spreads(real: History) -> Spreads:
    """From the residuals of the real history around its lines, by moments: within models, within releases, between those of a line,
    between lines. Bounds do not enter."""
    slope, heights, _ = censored_fit(real)
    plain = real.sides == PLAIN
    benchmarks, models = real.benchmarks[plain], real.models[plain]
    residuals = real.logs[plain] - heights[benchmarks] - slope * YEAR * real.years[plain]
    of_model = groups(models, residuals)
    order = list(dict.fromkeys(models))
    means = np.array([one.mean() for one in of_model])
    releases, lines = (np.array([labels[plain][models == model][0] for model in order]) for labels in (real.releases, real.lines))

    within = groups(releases, means)
    model = sum(float(np.sum((one - one.mean()) ** 2)) for one in within) / sum(len(one) - 1 for one in within)
    release_means = np.array([one.mean() for one in within])
    size = float(np.mean([1 / len(one) for one in within]))
    owners = np.array([lines[releases == label][0] for label in dict.fromkeys(releases)])
    of_owner = groups(owners, release_means)
    between = sum(float(np.sum((one - one.mean()) ** 2)) for one in of_owner) / max(1, sum(len(one) - 1 for one in of_owner))
    release = max(0.0, between - model * size)
    owner_means = np.array([one.mean() for one in of_owner])
    per_owner = float(np.mean([1 / len(one) for one in of_owner]))
    maker = max(0.0, float(np.var(owner_means, ddof=1)) - between * per_owner)

    count = int(benchmarks.max()) + 1
    if count == 1:
        # What is peculiar to a model cannot be told from what is peculiar to it on its one benchmark.
        return Spreads(math.sqrt(maker), math.sqrt(release), 0.0, [math.sqrt(model)])
    from_mean = residuals - np.array([means[order.index(own)] for own in models])
    own = [float(np.mean(from_mean[benchmarks == number] ** 2)) * count / (count - 1) for number in range(count)]
    of_means = float(np.mean(own)) * float(np.mean([1 / len(one) for one in of_model]))
    return Spreads(math.sqrt(maker), math.sqrt(release), math.sqrt(max(0.0, model - of_means)), [math.sqrt(one) for one in own])


def simulate(real: History, sd: Spreads, rate: float, rng: np.random.Generator) -> History:
    """One history with a known rate of growth per day, with one entry for each benchmark of each model."""
    own = rng.normal(0, sd.line, real.lines.max() + 1)
    rows, models, releases, effects = [], [], [], []
    for number, release in enumerate(rng.integers(real.releases.max() + 1, size=real.releases.max() + 1)):
        of_release = rng.normal(0, sd.release)
        for model in np.unique(real.models[real.releases == release]):
            members = np.flatnonzero(real.models == model)
            rows += list(members)
            models += [len(set(models))] * len(members)
            releases += [number] * len(members)
            effects += [own[real.lines[members[0]]] + of_release + rng.normal(0, sd.model)] * len(members)
    chosen = np.array(rows)
    errors, benchmarks, days = real.errors[chosen], real.benchmarks[chosen], real.days[chosen]
    rest = np.sqrt(np.maximum(np.array(sd.benchmarks)[benchmarks] ** 2 - errors**2, 0.0))
    _, heights, _ = censored_fit(real)
    truth = heights[benchmarks] + rate * (days - real.days.mean()) + np.array(effects) + rng.normal(0, 1, len(chosen)) * rest
    logs = truth + rng.normal(0, 1, len(chosen)) * errors
    low, high = real.lowest[chosen], real.highest[chosen]
    sides = np.where(logs < low, BELOW, np.where(logs > high, ABOVE, PLAIN))
    labels = (np.array(models), np.array(releases), real.lines[chosen], benchmarks)
    return History(days, np.clip(logs, low, high), errors, sides, low, high, *labels)


def means_of(one: History) -> History:
    """One entry a model: the mean over its benchmarks. With a bound among them it is a bound, and with bounds on both sides it is none."""
    rows = []
    for model in dict.fromkeys(one.models):
        own = np.flatnonzero(one.models == model)
        sides, mean = set(one.sides[own].tolist()) - {PLAIN}, float(one.logs[own].mean())
        if len(sides) < 2:
            side, at = sides.pop() if sides else PLAIN, own[0]
            low, high = (mean if side == bound else end for bound, end in ((BELOW, one.lowest[at]), (ABOVE, one.highest[at])))
            rows.append((one.days[at], mean, 0.0, side, low, high, model, one.releases[at], one.lines[at], 0))
    return History(*(np.array(column) for column in zip(*rows, strict=True)))


def record_setters(found: History, rng: np.random.Generator) -> tuple[float, float] | None:
    """The interval of the record setters' line by a bootstrap over models."""
    plain = np.flatnonzero(found.sides == PLAIN)
    slopes = []
    for _ in range(BOOTSTRAPS):
        pick = plain[rng.integers(len(plain), size=len(plain))]
        if (fit := frontier_fit(found.days[pick], found.logs[pick])) is not None:
            slopes.append(fit[0])
    return (float(np.quantile(slopes, 0.025)), float(np.quantile(slopes, 0.975))) if slopes else None


def main() -> None:
    """Simulate, print, and keep the result in simulations.json, or in simulations-mmlu.json and simulations-before.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--of", choices=["five", "mmlu", "before"], default="five")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    options = parser.parse_args()
    count, reference = options.count, Reference.load("qwen2.5")
    models = dated_models(reference, 500, 0, tuple(BENCHMARKS) if options.of == "five" else ("MMLU",))
    if options.of == "before":
        models = [model for model in models if model.released < CHATGPT_RELEASE]
    real = history_by_benchmark(models)
    sd = spreads(real)
    rounded = {name: np.round(value, 3).tolist() for name, value in vars(sd).items()}
    found: dict[str, Any] = {"histories": count, "spreads of ln density": rounded, "rates": {}}
    for rate in options.rates:
        rng = np.random.default_rng([2026, round(rate * 1e6)])
        fits: dict[str, list[tuple[float, float, float]]] = {"quantile regression": [], "censored likelihood": [], "record setters": []}
        bounds = []
        for _ in range(count):
            one = simulate(real, sd, rate, rng)
            means = means_of(one)
            plain = means.sides == PLAIN
            bounds.append(1 - float(plain.sum()) / len(np.unique(one.models)))
            for kind, known, slopes in (("quantile regression", means, quantile_slopes), ("censored likelihood", one, censored_slopes)):
                if (interval := growth(known, slopes)) is not None:
                    fits[kind].append((interval.value, interval.low, interval.high))
            line, interval_of_line = frontier_fit(means.days[plain], means.logs[plain]), record_setters(means, rng)
            if line is not None and interval_of_line is not None:
                fits["record setters"].append((line[0], *interval_of_line))
        entry: dict[str, Any] = {"share of models with a bound": round(float(np.mean(bounds)), 3)}
        for kind, values in fits.items():
            value, low, high = np.array(values).T
            entry[kind] = {
                "histories": len(values),
                "covers the rate": round(float(np.mean((low <= rate) & (rate <= high))), 3),
                "excludes 0": round(float(np.mean((low > 0) | (high < 0))), 3),
                "mean": round(float(value.mean()), 5),
                "sd": round(float(value.std()), 5),
                "95% of the estimates": [round(float(end), 5) for end in np.quantile(value, [0.025, 0.975])],
                "median width": round(float(np.median(high - low)), 5),
            }
        found["rates"][str(rate)] = entry
        print(rate, json.dumps(entry, indent=1), flush=True)
    kept = HERE / ("simulations.json" if options.of == "five" else f"simulations-{options.of}.json")
    kept.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
