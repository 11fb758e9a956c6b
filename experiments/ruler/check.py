"""How far the ruler can be trusted: left-out sizes, long runs, its own models, and studies simulated with a known truth.

    python experiments/ruler/check.py sizes                  # a minute
    python experiments/ruler/check.py studies --count 500    # ten minutes
    python experiments/ruler/check.py runs                   # seconds

Prints what README.md reports, and writes it beside this file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from compresslab.density import Measured, Reference, assess
from compresslab.density.capability import Ruler, measure_task
from compresslab.density.draws import Draws, TaskDraws
from compresslab.density.intervals import LogEstimate, geometric_mean, ratio, verdict
from compresslab.density.references.build import CONVENTION, fit_laws, left_out, rounded
from compresslab.density.references.fitting import fit_losses
from compresslab.density.references.laws import D_UNIT, N_UNIT, ln_n_of_loss, loss_law
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size
from tools.references.ladder import read_ladder

HERE = Path(__file__).parent
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
TOKENS = 1e12
TASKS = ("arc_easy", "csqa", "piqa")


def sizes(resamples: int) -> dict[str, Any]:
    """Leave each model size out of the OLMo ladder and read its runs' N off the rest, with each run's own 95% interval."""
    table = read_ladder()
    table = table[~table["long"]]
    names = list(Reference.load("olmo-ladder").tasks)
    by_task = {task: table[table["task"] == task] for task in names}
    rng = np.random.default_rng(0)
    rows = []
    for size, (left, laws) in left_out(names, by_task, irreducible=True).items():
        kept = len(laws.data[0][0])
        residuals = np.stack([np.log(loss / loss_law(t, n, d)) for t, (n, d, loss) in zip(laws.thetas, laws.data, strict=True)])
        residuals *= np.sqrt(kept / (kept - 5))
        draws = []
        for _ in range(resamples):
            weight = rng.exponential(size=kept)
            thetas = fit_losses(laws.data, [weight] * len(names), laws.scale, [laws.thetas], irreducible=True)
            shift = residuals[:, rng.integers(kept)]
            draws.append(_read(thetas, left, shift))
        value, drawn = _read(laws.thetas, left, np.zeros(len(names))), np.stack(draws)
        # As the product does: order statistics, so that an end that some fits do not reach is infinite and not NaN.
        low, high = np.quantile(drawn, 0.025, axis=0, method="lower"), np.quantile(drawn, 0.975, axis=0, method="higher")
        rows += [
            {"size": size, "tokens": float(d * D_UNIT), "error": float(v), "low": float(a), "high": float(b), "inside": bool(a <= 0 <= b)}
            for d, v, a, b in zip(left[0][1], value, low, high, strict=True)
        ]
    errors = np.abs([row["error"] for row in rows])
    return {
        "runs": len(rows),
        "median_factor": float(np.exp(np.median(errors))),
        "worst_factor": float(np.exp(errors.max())),
        "inside_own_95": float(np.mean([row["inside"] for row in rows])),
        "intervals_without_an_upper_end": int(sum(not np.isfinite(row["high"]) for row in rows)),
        "by_size": {
            s: float(np.exp(np.median([abs(r["error"]) for r in rows if r["size"] == s]))) for s in dict.fromkeys(r["size"] for r in rows)
        },
        "rows": rows,
    }


def _read(thetas: np.ndarray, left: list[Any], shift: np.ndarray) -> np.ndarray:
    """ln(N_hat / N) of the left-out runs, mean over tasks."""
    logs = [ln_n_of_loss(t, loss * np.exp(-s), d) - np.log(n) for t, (n, d, loss), s in zip(thetas, left, shift, strict=True)]
    return np.mean(logs, axis=0)


def synthetic(rng: np.random.Generator, resamples: int) -> dict[str, Any]:
    """A ladder drawn from the shipped laws as if they were the truth, with the shipped scatter, and the reference fitted to it."""
    truth = Reference.load("olmo-ladder")
    table = read_ladder()
    table = table[~table["long"] & (table["task"] == TASKS[0])]
    n, d = table["n"].to_numpy(), table["d"].to_numpy()
    which = rng.integers(len(n), size=len(n))  # residuals of whole runs: what is peculiar to a run is common to its tasks
    data = [(n, d, loss_law(truth.tasks[t].loss[0], n, d) * np.exp(truth.tasks[t].loss_residuals[which])) for t in TASKS]
    laws = fit_laws(TASKS, data, irreducible=True)
    draws = []
    for _ in range(resamples):
        weight = rng.exponential(size=len(n))
        draws.append(fit_losses(data, [weight] * len(TASKS), laws.scale, [laws.thetas], irreducible=True))
    entry = {"origin": "", "chance": None, "score": None, "score_resamples": None, "r2_loss": 1.0, "r2_score": None, "held_out": {}}
    entry |= {"loss_range": [0.1, 3.0], "score_range": None, "loss_left": [0.0], "score_left": None}
    return {
        "name": "synthetic",
        "source": "simulated",
        "kind": "ladder",
        "unit": "bits per byte",
        "convention": CONVENTION,
        "form": {},
        "runs": len(n),
        "parameters_range": [float(n.min() * N_UNIT), float(n.max() * N_UNIT)],
        "tokens_range": [float(d.min() * D_UNIT), float(d.max() * D_UNIT)],
        "tasks": {
            t: {**entry, "latent": t, "loss": rounded(laws.thetas[i]), "loss_resamples": [rounded(draw[i]) for draw in draws]}
            for i, t in enumerate(TASKS)
        },
    }


def variant(rng: np.random.Generator, name: str, parent: str, n_hat: float, n: float, hard: dict[str, np.ndarray], items: int) -> Measured:
    """A model of true N_hat: its expected loss over all items there could be is the true law's; it answers `items` of them."""
    truth, answered = Reference.load("olmo-ladder"), {}
    for task in TASKS:
        mean, _ = truth.predict(task, n_hat, TOKENS)
        own = rng.lognormal(-0.02, 0.2, items)
        answered[task] = ItemScores(
            task=task,
            item=[str(i) for i in range(items)],
            bits_per_byte=list(mean * hard[task] * own),
            correct=[float(i % 2) for i in range(items)],
            choice=[0] * items,
            gold=[0] * items,
        )
    count = round(n)
    size = Size(parameters=count, counted=count, active=count, nonzero=count, stored_bytes=2 * count, effective_bits=16.0)
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items=answered)


def studies(count: int, resamples: int, seed: int) -> dict[str, Any]:
    """Each study has its own ladder, its own items, and two children of one base: one with r drawn from 0.5 to 2, one with r = 1."""
    covered, false, null_covered, widths = 0, 0, 0, []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "synthetic.json"
            path.write_text(json.dumps(synthetic(rng, resamples)))
            items = int(rng.choice([100, 300, 1000]))
            base_n = float(np.exp(rng.uniform(np.log(4e8), np.log(3e9))))
            base_hat, shrink = base_n * float(rng.uniform(0.6, 1.4)), float(rng.uniform(0.5, 0.9))
            hard = {task: rng.lognormal(-0.125, 0.5, items) for task in TASKS}
            r = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
            base = variant(rng, "base", "", base_hat, base_n, hard, items)
            other = variant(rng, "other", "base", base_hat * shrink * r, base_n * shrink, hard, items)
            same = variant(rng, "same", "base", base_hat * shrink, base_n * shrink, hard, items)
            config = DensityConfig(reference=str(path), tokens=TOKENS, resamples=1000, seed=number)
            first = assess([base, other], config, [])["other"][1][0]
            second = assess([base, same], config, [])["same"][1][0]
        assert first.ratio is not None
        assert second.ratio is not None
        covered += first.ratio.low <= r <= first.ratio.high
        null_covered += second.ratio.low <= 1 <= second.ratio.high
        false += second.verdict != "inconclusive"
        widths.append(np.log(first.ratio.high / first.ratio.low) if first.ratio.low > 0 else np.inf)
        if (number + 1) % 25 == 0:
            print(f"{number + 1}: covered {covered / (number + 1):.3f}, null covered {null_covered / (number + 1):.3f}, "
                  f"false verdicts {false / (number + 1):.3f}", flush=True)  # fmt: skip
    return {
        "studies": count,
        "ruler_resamples": resamples,
        "coverage_of_r": covered / count,
        "coverage_under_no_difference": null_covered / count,
        "false_verdicts_under_no_difference": false / count,
        "median_width_of_interval_factor": float(np.exp(np.median(widths))),
    }


def runs() -> dict[str, Any]:
    """Every pair of the ladder's own runs, whose true r is 1, as if its losses were known exactly: how often would a verdict be given?

    "held against scatter" is what the robustness row of that name says: each run lends another run's residuals.
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
                ruler = Ruler(reference, float(row.d) * D_UNIT, rows, shares, with_scatter=with_scatter)
                drawn = Draws(float(row.loss), np.full(draws, float(row.loss)), None, "")
                parts.append(measure_task(ruler, str(row.task), TaskDraws({reference.unit: drawn}, flat)).by_loss)
            mean = geometric_mean([part for part in parts if part is not None])
            assert mean is not None
            found.setdefault(str(run), {})[with_scatter] = mean.over(float(own["n"].iloc[0]) * N_UNIT)
    pairs = [(a, b) for i, a in enumerate(found.values()) for b in list(found.values())[:i]]
    decided = {}
    for with_scatter in (False, True):
        ratios = [ratio(a[with_scatter], b[with_scatter]) for a, b in pairs]
        decided[with_scatter] = float(np.mean([one is not None and verdict(one.interval()) != "inconclusive" for one in ratios]))
    spread = float(np.std([one[False].point for one in found.values()]))
    return {"pairs": len(pairs), "verdicts": decided[False], "held against scatter": decided[True], "sd_of_ln_density": spread}


def main() -> None:
    """Run one of the checks and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sizes", "studies", "runs"])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = {
        "sizes": lambda: sizes(arguments.resamples),
        "studies": lambda: studies(arguments.count, arguments.resamples, arguments.seed),
        "runs": runs,
    }[arguments.what]()
    (HERE / f"{arguments.what}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}, indent=1))


if __name__ == "__main__":
    main()
