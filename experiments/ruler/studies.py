"""Studies simulated with a known truth, each with a ladder of its own: does the interval of r hold it, and are verdicts false?

    python experiments/ruler/studies.py --count 400              # some 20 minutes
    python experiments/ruler/studies.py --count 400 --law "E = 0"

Every study draws a ladder from the law that was fitted to the OLMo ladder (E > 0, or E = 0), with the residuals of that fit, and fits a
reference to it as `compresslab reference fit` does: form, resamples and reach anew. Every arm then compares two models of a known r.
Prints what README.md reports, and writes it beside this file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from compresslab.density import Measured, assess
from compresslab.density.references.budget import default_budget
from compresslab.density.references.build import ReferenceSpec, build
from compresslab.density.references.laws import D_UNIT, N_UNIT, loss_law
from compresslab.density.references.left_out import FittedLaws, data_of, fit_laws
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Shape, Size
from tools.references.ladder import read_ladder

HERE = Path(__file__).parent
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
TASKS = ("arc_easy", "csqa", "piqa")
GROUPS = 20  # of the arm with correlated items


class Arm(NamedTuple):
    """A kind of pair: the range of the base's N_hat, and how its items behave.

    Attributes:
        grouped: half of the variance of what is peculiar to a model is common to a group of items, which the items' names tell.
        heavy: a twentieth of the items differs by far more. apart: the two were trained separately, each with the scatter of a run.
    """

    low: float
    high: float
    grouped: bool = False
    heavy: bool = False
    apart: bool = False


ARMS = {
    "in range": Arm(4e8, 3e9),
    "below the ladder": Arm(6e7, 2.5e8),
    "above the ladder": Arm(3e9, 7e9),
    "correlated items": Arm(4e8, 3e9, grouped=True),
    "heavy tails": Arm(4e8, 3e9, heavy=True),
    "trained separately": Arm(4e8, 3e9, apart=True),
    "trained separately, below": Arm(6e7, 2.5e8, apart=True),
}


def truth(form: str) -> FittedLaws:
    """The law of the real ladder, which the simulation takes as the truth."""
    table = read_ladder()
    table = table[~table["long"]]
    return fit_laws(TASKS, [data_of(table[table["task"] == task]) for task in TASKS], irreducible=form == "E > 0")


def residuals(laws: FittedLaws) -> np.ndarray:
    """(tasks, runs) ln(measured / fitted loss), widened because the coefficients were fitted to the same runs."""
    found = np.stack([np.log(loss / loss_law(theta, n, d)) for theta, (n, d, loss) in zip(laws.thetas, laws.data, strict=True)])
    return found * np.sqrt(found.shape[1] / (found.shape[1] - 5))


def ladder(rng: np.random.Generator, laws: FittedLaws, resamples: int) -> dict[str, Any]:
    """A reference fitted to a ladder drawn from `laws`. The residuals are those of whole runs, common to its tasks."""
    n, d, _ = laws.data[0]
    scatter = residuals(laws)[:, rng.integers(len(n), size=len(n))]
    rows = [
        {"task": task, "run": str(i), "size": f"{n[i]:.3f}", "n": n[i], "d": d[i], "loss": losses[i], "score": float("nan")}
        for task, losses in zip(TASKS, [loss_law(t, n, d) * np.exp(s) for t, s in zip(laws.thetas, scatter, strict=True)], strict=True)
        for i in range(len(n))
    ]
    spec = ReferenceSpec("synthetic", "simulated", "bits per byte", dict.fromkeys(TASKS))
    return build(spec, pd.DataFrame(rows), resamples=resamples)


def variant(
    rng: np.random.Generator, name: str, n_hat: float, n: float, laws: FittedLaws, hard: dict[str, np.ndarray], arm: Arm
) -> Measured:
    """A model of true N_hat: its expected loss over all items there could be is the true law's."""
    shift = residuals(laws)[:, rng.integers(residuals(laws).shape[1])] if arm.apart else np.zeros(len(TASKS))
    answered = {}
    for task, theta, own_scatter in zip(TASKS, laws.thetas, shift, strict=True):
        items = len(hard[task])
        mean = loss_law(theta, np.array(n_hat / N_UNIT), np.array(default_budget().at(n_hat) / D_UNIT)) * np.exp(own_scatter)
        groups = np.arange(items) % GROUPS
        if arm.grouped:
            own = rng.lognormal(-0.01, 0.2 / np.sqrt(2), items) * rng.lognormal(-0.01, 0.2 / np.sqrt(2), GROUPS)[groups]
        elif arm.heavy:
            own = np.where(rng.random(items) < 0.05, rng.lognormal(-0.5, 1.0, items), rng.lognormal(-0.02, 0.2, items))
        else:
            own = rng.lognormal(-0.02, 0.2, items)
        answered[task] = ItemScores(
            task=task,
            item=[f"{groups[i]}/{i}" if arm.grouped else str(i) for i in range(items)],
            bits_per_byte=list(mean * hard[task] * own),
            correct=[float(i % 2) for i in range(items)],
            choice=[0] * items,
            gold=[0] * items,
        )
    count = round(n)
    size = Size(parameters=count, counted=count, active=count, nonzero=count, stored_bytes=2 * count, effective_bits=16.0)
    runs = [name] if arm.apart else ["base"]
    parent = "" if name == "base" else "base"
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items=answered, runs=runs)


def study(seed: int, number: int, laws: FittedLaws, resamples: int) -> list[dict[str, Any]]:
    """One ladder, and in every arm a child of r drawn from 0.5 to 2 and one of r = 1."""
    rng, found = np.random.default_rng([seed, number]), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.json"
        path.write_text(json.dumps(ladder(rng, laws, resamples)))
        for name, arm in ARMS.items():
            items = int(rng.choice([100, 300, 1000]))
            base_hat, shrink = float(np.exp(rng.uniform(np.log(arm.low), np.log(arm.high)))), float(rng.uniform(0.5, 0.9))
            base_n = base_hat / float(rng.uniform(0.6, 1.4))
            hard = {task: rng.lognormal(-0.125, 0.5, items) for task in TASKS}
            base = variant(rng, "base", base_hat, base_n, laws, hard, arm)
            config = DensityConfig(reference=str(path), resamples=1000, seed=number)
            for r in (float(np.exp(rng.uniform(np.log(0.5), np.log(2.0)))), 1.0):
                child = variant(rng, "child", base_hat * shrink * r, base_n * shrink, laws, hard, arm)
                comparison = assess([base, child], config, [])["child"][1][0]
                if (ratio := comparison.ratio) is not None:
                    found.append(
                        {
                            "arm": name,
                            "null": r == 1.0,
                            "covered": ratio.low <= r <= ratio.high,
                            "miss": "low" if ratio.high < r else "high" if ratio.low > r else "",
                            "error": np.log(ratio.value / r),
                            "bound": bool(ratio.bound),
                            "extrapolated": ratio.extrapolated,
                            "verdict": comparison.verdict,
                            "width": np.log(ratio.high / ratio.low) if ratio.low > 0 else np.inf,
                        }
                    )
    return found


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """What an arm came to."""
    plain, null = rows[~rows["bound"]], rows[rows["null"]]
    return {
        "pairs": len(rows),
        "bounds": round(float(rows["bound"].mean()), 3),
        "coverage": round(float(plain["covered"].mean()), 3),
        "coverage of bounds": round(float(rows[rows["bound"]]["covered"].mean()), 3) if rows["bound"].any() else None,
        "r too low": round(float((plain["miss"] == "low").mean()), 3),
        "r too high": round(float((plain["miss"] == "high").mean()), 3),
        "bias of ln r": round(float(plain["error"].mean()), 4),
        "its standard error": round(float(plain["error"].std() / np.sqrt(len(plain))), 4),
        "median factor between the ends": round(float(np.exp(plain["width"].median())), 2),
        "false verdicts": round(float((null["verdict"] != "inconclusive").mean()), 3),
    }


def main() -> None:
    """Simulate and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=100, help="of each ladder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--law", choices=["E > 0", "E = 0"], default="E > 0", help="the truth")
    given = parser.parse_args()
    laws, rows = truth(given.law), []
    for number in range(given.count):
        rows += study(given.seed, number, laws, given.resamples)
        if (number + 1) % 20 == 0 or number + 1 == given.count:
            table = pd.DataFrame({arm: summary(found) for arm, found in pd.DataFrame(rows).groupby("arm", sort=False)}).T
            print(f"\n{number + 1} studies, truth {given.law}\n{table.to_string()}", flush=True)
    name = "studies.json" if given.law == "E > 0" else "studies-no-offset.json"
    found = {arm: summary(part) for arm, part in pd.DataFrame(rows).groupby("arm", sort=False)}
    (HERE / name).write_text(json.dumps({"studies": given.count, "seed": given.seed, "truth": given.law, "arms": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
