"""Held-out runs of the OLMo ladder, read back as densities: which D0, form and fit the default ruler should have, and how far it reaches.

    python experiments/ruler/held_out.py choices                  # two minutes: D0, form, long runs, pooling
    python experiments/ruler/held_out.py sizes --resamples 200    # two minutes: the chosen one, with each run's own 95% interval
    python experiments/ruler/held_out.py pairs                    # seconds: pairs of the ladder's own runs, whose true r is 1

Each size is left out in turn, and each long run. Its measured loss and the loss that the other runs predict for it are both read at D0; the
density error is their ratio, and its truth is 1. Prints what README.md reports, and writes it beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compresslab.density import Budget, Reference
from compresslab.density.capability import Ruler, measure_task
from compresslab.density.draws import Draws, TaskDraws
from compresslab.density.intervals import LogEstimate, geometric_mean, ratio, verdict
from compresslab.density.references.budget import default_budget
from compresslab.density.references.fitting import POOLING, fit_losses, loss_starts, scales
from compresslab.density.references.laws import D_UNIT, N_UNIT, ln_n_along, ln_n_of_loss, loss_law
from compresslab.density.references.left_out import Data, FittedLaws, data_of, left_out
from tools.references.ladder import LONG_RUNS, read_ladder

HERE = Path(__file__).parent
BUDGETS = (
    Budget(per_parameter=20.0),
    Budget(per_parameter=200.0),
    Budget(per_parameter=2000.0),
    Budget(tokens=3e11),
    Budget(tokens=1e12),
    Budget(tokens=5e12),
)


def read(theta: np.ndarray, loss: np.ndarray, budget: Budget) -> np.ndarray:
    """ln N_hat (1e9) at a budget."""
    if budget.per_parameter is not None:
        return ln_n_along(theta, loss, budget.per_parameter)
    return ln_n_of_loss(theta, loss, (budget.tokens or 0.0) / D_UNIT)


def errors(laws: FittedLaws, left: list[Data], budget: Budget | None) -> np.ndarray:
    """(runs,) ln of the density that left-out runs are read at, mean over tasks; without a budget, each at its own tokens."""
    found = []
    for theta, (n, d, loss) in zip(laws.thetas, left, strict=True):
        if budget is None:
            found.append(ln_n_of_loss(theta, loss, d) - np.log(n))
        else:
            with np.errstate(invalid="ignore"):
                found.append(read(theta, loss, budget) - read(theta, loss_law(theta, n, d), budget))
    return np.asarray(np.mean(found, axis=0))


def fitted(names: list[str], rows: dict[str, pd.DataFrame], *, irreducible: bool, pooling: float) -> FittedLaws:
    """As `left_out.fit_laws`, with another pooling of the exponents over tasks."""
    data = [data_of(rows[name]) for name in names]
    ones = [np.ones(len(n)) for n, _, _ in data]
    rough = fit_losses(data, ones, np.full(len(data), 0.01), loss_starts(data), pooling, irreducible=irreducible)
    scale = scales(rough, data)
    thetas = fit_losses(data, ones, scale, [*loss_starts(data), rough], pooling, irreducible=irreducible)
    return FittedLaws(names, data, scale, thetas, irreducible)


def choices() -> dict[str, Any]:
    """The density errors of left-out sizes and long runs under every choice of fit and D0."""
    table, names = read_ladder(), list(Reference.load("olmo-ladder").tasks)
    fits: dict[str, dict[str, tuple[FittedLaws, list[Data]]]] = {}
    for form, irreducible in (("E > 0", True), ("E = 0", False)):
        for long_in in (False, True):
            for pooling, told in ((POOLING, "joint"), (10.0, "by task")):
                if told == "by task" and (long_in or not irreducible):
                    continue
                name = f"{form}, long runs {'in' if long_in else 'out'}, {told}"
                fits[name] = {}
                for size in table["size"].unique():
                    kept = table[(table["size"] != size) & (~table["long"] | long_in)]
                    rows = {task: kept[kept["task"] == task] for task in names}
                    laws = fitted(names, rows, irreducible=irreducible, pooling=pooling)
                    fits[name][size] = laws, [data_of(table[(table["task"] == t) & (table["size"] == size)]) for t in names]
    found = []
    for budget in (None, *BUDGETS):
        for name, by_size in fits.items():
            read_as = {size: errors(laws, left, budget) for size, (laws, left) in by_size.items()}
            short = np.abs(np.concatenate([error for size, error in read_as.items() if size not in LONG_RUNS]))
            row = {"D0": "own tokens" if budget is None else str(budget), "fit": name}
            row |= {"median factor": float(np.exp(np.median(short))), "worst factor": float(np.exp(short.max()))}
            found.append(row | {size: float(np.exp(read_as[size][0])) for size in LONG_RUNS})
    print(pd.DataFrame(found).round(2).to_string(index=False))
    return {"rows": found}


def sizes(resamples: int) -> dict[str, Any]:
    """Left-out sizes at the default D0, each run with its own 95% interval, scatter in; and how the reference reads the long runs."""
    table = read_ladder()
    names = list(Reference.load("olmo-ladder").tasks)
    by_task = {task: table[~table["long"] & (table["task"] == task)] for task in names}
    rng, budget, rows = np.random.default_rng(0), default_budget(), []
    for size, (left, laws) in left_out(names, by_task, irreducible=True).items():
        kept = len(laws.data[0][0])
        residuals = np.stack([np.log(loss / loss_law(t, n, d)) for t, (n, d, loss) in zip(laws.thetas, laws.data, strict=True)])
        residuals *= np.sqrt(kept / (kept - 5))
        draws = []
        for _ in range(resamples):
            weight = rng.exponential(size=kept)
            thetas = fit_losses(laws.data, [weight] * len(names), laws.scale, [laws.thetas], irreducible=True)
            drawn = FittedLaws(names, laws.data, laws.scale, thetas, irreducible=True)
            shift = residuals[:, rng.integers(kept)]
            shifted = [(n, d, loss * np.exp(-s)) for (n, d, loss), s in zip(left, shift, strict=True)]
            draws.append(errors(drawn, shifted, budget))
        # As the product does: order statistics, so that an end that some fits do not reach is infinite and not NaN.
        stacked, value = np.stack(draws), errors(laws, left, budget)
        low, high = np.quantile(stacked, 0.025, axis=0, method="lower"), np.quantile(stacked, 0.975, axis=0, method="higher")
        rows += [
            {"size": size, "tokens": float(d * D_UNIT), "error": float(v), "low": float(a), "high": float(b), "inside": bool(a <= 0 <= b)}
            for d, v, a, b in zip(left[0][1], value, low, high, strict=True)
        ]
    absolute = np.abs([row["error"] for row in rows])
    return {
        "runs": len(rows),
        "median_factor": float(np.exp(np.median(absolute))),
        "worst_factor": float(np.exp(absolute.max())),
        "inside_own_95": float(np.mean([row["inside"] for row in rows])),
        "by_size": {
            size: float(np.exp(np.median([abs(row["error"]) for row in rows if row["size"] == size])))
            for size in dict.fromkeys(row["size"] for row in rows)
        },
        "long_runs": _long_runs(table, names),
        "rows": rows,
    }


def _long_runs(table: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """What the shipped reference says of the long runs: N_hat at the default D0, task by task combined, with its flags."""
    reference, found = Reference.load("olmo-ladder"), []
    for run in LONG_RUNS:
        own = table[table["size"] == run]
        read_as = [reference.effective_params(task=t, bpb=float(own[own["task"] == t]["loss"].iloc[0])) for t in names]
        n = float(own["n"].iloc[0]) * N_UNIT
        found.append(
            {
                "run": run,
                "n": n,
                "tokens": float(own["d"].iloc[0]) * D_UNIT,
                "density": float(np.exp(np.mean([np.log(one.value / n) for one in read_as]))),
                "bounds": sum(bool(one.bound) for one in read_as),
                "extrapolated": sum(one.extrapolated for one in read_as),
                "tasks": len(names),
            }
        )
    return found


def pairs() -> dict[str, Any]:
    """Every pair of the ladder's own runs, whose true r is 1, as if its losses were known exactly: how often would a verdict be given?

    "with scatter" is r of models that were trained separately, as the product gives it.
    """
    reference, table = Reference.load("olmo-ladder"), read_ladder()
    table = table[~table["long"]]
    rng, draws = np.random.default_rng(0), 2000
    rows = rng.integers(reference.resamples, size=draws) + 1
    flat = Draws(0.5, np.full(draws, 0.5), None, "")
    found: dict[str, dict[bool, LogEstimate]] = {}
    for run, own in table.groupby("run"):
        shares = rng.random(draws)
        for with_scatter in (False, True):
            parts = []
            for row in own.itertuples():
                ruler = Ruler(reference, Budget(tokens=float(row.d) * D_UNIT), rows, (shares,), without_scatter=not with_scatter)
                drawn = Draws(float(row.loss), np.full(draws, float(row.loss)), None, "")
                parts.append(measure_task(ruler, str(row.task), TaskDraws({reference.unit: drawn}, flat)).by_loss_with_scatter)
            mean = geometric_mean([part for part in parts if part is not None])
            assert mean is not None
            found.setdefault(str(run), {})[with_scatter] = mean.over(float(own["n"].iloc[0]) * N_UNIT)
    both = [(a, b) for i, a in enumerate(found.values()) for b in list(found.values())[:i]]
    decided = {}
    for with_scatter in (False, True):
        ratios = [ratio(a[with_scatter], b[with_scatter]) for a, b in both]
        decided[with_scatter] = float(np.mean([one is not None and verdict(one.interval()) != "inconclusive" for one in ratios]))
    spread = float(np.std([one[False].point for one in found.values()]))
    return {"pairs": len(both), "verdicts without scatter": decided[False], "with scatter": decided[True], "sd_of_ln_density": spread}


def main() -> None:
    """Run one of the checks and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["choices", "sizes", "pairs"])
    parser.add_argument("--resamples", type=int, default=200)
    given = parser.parse_args()
    checks: dict[str, Callable[[], dict[str, Any]]] = {"choices": choices, "sizes": lambda: sizes(given.resamples), "pairs": pairs}
    found = checks[given.what]()
    (HERE / f"{given.what}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}, indent=1))


if __name__ == "__main__":
    main()
