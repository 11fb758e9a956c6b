"""Whether the intervals of the rate of growth hold: histories whose growth is known, and those without any.

python experiments/trend/simulate.py                    # all dated models with the five benchmarks, 500 histories a rate
python experiments/trend/simulate.py --count 50
python experiments/trend/simulate.py --of mmlu          # MMLU alone; --of before: those from before ChatGPT

A history has as many releases as the real one (base models, on qwen2.5), drawn from it with replacement: their
dates, the sizes of their models and the errors of their densities. The ln density of a model is A t plus effects of its line of models, of
its release and of its own, whose spreads are those of the real history around its fitted line, plus the error of its scores. A density
beyond what the reference is read at becomes a bound, as in the real history.
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
from compresslab.density.trend.models import dated_models, history
from compresslab.density.trend.trend import CHATGPT_RELEASE

HERE = Path(__file__).parent
RATES = (0.0, 0.002, 0.004, 0.007)
BOOTSTRAPS = 200


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of ln density between lines of models, between the releases of one, and between the models of a release."""

    line: float
    release: float
    model: float


def spreads(real: History) -> Spreads:
    """From the residuals of the real history around its line, by moments: within releases, between those of a line, between lines."""
    slope, height, _ = censored_fit(real)
    plain = real.sides == PLAIN
    residuals = real.logs - height - slope * YEAR * real.years
    makers = real.lines

    def groups(labels: Any, values: Any) -> list[Any]:
        return [values[labels == label] for label in dict.fromkeys(labels)]

    within = groups(real.releases[plain], residuals[plain])
    model = sum(float(np.sum((one - one.mean()) ** 2)) for one in within) / sum(len(one) - 1 for one in within)
    means = np.array([one.mean() for one in within])
    size = float(np.mean([1 / len(one) for one in within]))
    owners = np.array([makers[plain][real.releases[plain] == label][0] for label in dict.fromkeys(real.releases[plain])])
    of_owner = groups(owners, means)
    between = sum(float(np.sum((one - one.mean()) ** 2)) for one in of_owner) / max(1, sum(len(one) - 1 for one in of_owner))
    release = max(0.0, between - model * size)
    owner_means = np.array([one.mean() for one in of_owner])
    per_owner = float(np.mean([1 / len(one) for one in of_owner]))
    maker = max(0.0, float(np.var(owner_means, ddof=1)) - between * per_owner)
    return Spreads(math.sqrt(maker), math.sqrt(release), math.sqrt(model))


def simulate(real: History, sd: Spreads, rate: float, rng: np.random.Generator) -> History:
    """One history with a known rate of growth per day."""
    drawn = rng.integers(real.releases.max() + 1, size=real.releases.max() + 1)
    own = rng.normal(0, sd.line, real.lines.max() + 1)
    rows, releases, effects = [], [], []
    for number, release in enumerate(drawn):
        members = np.flatnonzero(real.releases == release)
        rows += list(members)
        releases += [number] * len(members)
        effects += [own[real.lines[members[0]]] + rng.normal(0, sd.release)] * len(members)
    chosen = np.array(rows)
    errors = real.errors[chosen]
    rest = np.sqrt(np.maximum(sd.model**2 - errors**2, 0.0))
    days = real.days[chosen]
    _, height, _ = censored_fit(real)
    truth = height + rate * (days - real.days.mean()) + np.array(effects) + rng.normal(0, 1, len(chosen)) * rest
    logs = truth + rng.normal(0, 1, len(chosen)) * errors
    low, high = real.lowest[chosen], real.highest[chosen]
    sides = np.where(logs < low, BELOW, np.where(logs > high, ABOVE, PLAIN))
    return History(days, np.clip(logs, low, high), errors, sides, low, high, np.array(releases), real.lines[chosen])


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
    real = history(models)
    sd = spreads(real)
    found: dict[str, Any] = {"histories": count, "spreads of ln density": {k: round(v, 3) for k, v in vars(sd).items()}, "rates": {}}
    for rate in options.rates:
        rng = np.random.default_rng([2026, round(rate * 1e6)])
        fits: dict[str, list[tuple[float, float, float]]] = {"quantile regression": [], "censored likelihood": [], "record setters": []}
        bounds = []
        for _ in range(count):
            one = simulate(real, sd, rate, rng)
            bounds.append(float(np.mean(one.sides != PLAIN)))
            for kind, slopes in (("quantile regression", quantile_slopes), ("censored likelihood", censored_slopes)):
                if (interval := growth(one, slopes)) is not None:
                    fits[kind].append((interval.value, interval.low, interval.high))
            line, interval_of_line = frontier_fit(*(part[one.sides == PLAIN] for part in (one.days, one.logs))), record_setters(one, rng)
            if line is not None and interval_of_line is not None:
                fits["record setters"].append((line[0], *interval_of_line))
        entry: dict[str, Any] = {"share of bounds": round(float(np.mean(bounds)), 3)}
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
