"""Fit the default reference: from the OLMo ladder's table to `data/references/olmo-ladder.json`.

Run `python -m compresslab.density.fit` to write the file again; the same code and table give the same file.

Two steps, as in the Densing Law (Xiao et al., arXiv 2412.04315) and in the ladder's own paper (Bhagia et al.,
arXiv 2412.04403):

1. loss: L(N, D) = E + a N^-alpha + b D^-beta, N in 1e9 parameters, D in 1e11 tokens, L in bits per byte.
   E = 0 is the Densing paper's form.
2. score: S(L) = c / (1 + exp(gamma (L - l))) + d with gamma > 0. The paper writes exp(-gamma (L - l)), so its
   gamma is the negative of ours.

Choices, each made by what it predicts, never by the three long runs' own values entering the fit:

- The loss law sees the last checkpoint of each run only. Earlier ones stand at a learning rate that has not decayed:
  adding the last 2, 3 or all 8 of each run made the worst miss on the long runs larger, not smaller.
- The exponents of the tasks are drawn towards their common (geometric) mean. Thirty runs of one task hardly tell
  alpha from E, and beta from E; seven tasks together do. See `POOLING`.
- The score link sees every checkpoint: a checkpoint's loss and score belong together whatever its learning rate. Its
  lower end d is fitted, not set to chance: small models choose below chance on arc_challenge and openbookqa (length
  normalisation works against the right answer), and on the other tasks they stay clear above it. With d = chance
  the scores of the 6.9B and 13.2B runs, given their measured loss, were missed by 7% on average, with d fitted by 4%.
- winogrande and boolq are left out: their loss hardly depends on the model's size (R2 0.91 and 0.60).
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

N_UNIT = 1e9
D_UNIT = 1e11
TASKS = {
    "arc_easy": ("arc_easy_test_rc_5shot", 1 / 4),
    "arc_challenge": ("arc_challenge_test_rc_5shot", 1 / 4),
    "hellaswag": ("hellaswag_val_rc_5shot", 1 / 4),
    "piqa": ("piqa_val_rc_5shot", 1 / 2),
    "csqa": ("csqa_val_rc_5shot", 1 / 5),
    "socialiqa": ("socialiqa_val_rc_5shot", 1 / 3),
    "openbookqa": ("openbookqa_test_rc_5shot", 1 / 4),
}
"""Our task name -> the ladder's name of it, and the accuracy of a uniform guess."""

LONG_RUNS = ("peteish1", "peteish7", "peteish13")
"""Runs far beyond the ladder's token budgets. Held out: they tell how far the ruler can be trusted."""

POOLING = 0.1
"""Spread of ln(alpha) and of ln(beta) over tasks that costs one unit of residual.

Chosen inside the ladder: predicting the 3.2B runs from the smaller ones misses by 1.4% (root mean square) at 0.1 and by
2.4% without pooling; predicting the 190M runs from the larger ones by 2.3% and 2.7%. The long runs agree: worst miss 8%
against 13%. Much stronger pooling (0.02) is worse on all three.
"""

HUBER = 1.5
"""Residuals beyond this many scales count linearly."""

SCORE_HUBER = 0.01
RESAMPLES = 200
SEED = 20241206


def read_ladder() -> pd.DataFrame:
    """The ladder's table of the tasks above, one row a checkpoint and task.

    Columns: task (ours), run, size, n (1e9 parameters), d (1e11 tokens), bpb, accuracy, final, long (bools).
    """
    with resources.as_file(resources.files("compresslab") / "data" / "olmo_ladder.csv") as path:
        table = pd.read_csv(path)
    ours = {ladder: task for task, (ladder, _) in TASKS.items()}
    table = table[table["task"].isin(list(ours))]
    return pd.DataFrame(
        {
            "task": table["task"].map(ours),
            "run": table["run"],
            "size": table["size"],
            "n": table["params_nonembedding"] / N_UNIT,
            "d": table["tokens"] / D_UNIT,
            "bpb": table["bpb"],
            "accuracy": table["accuracy"],
            "final": table["is_final"] == 1,
            "long": table["size"].isin(LONG_RUNS),
        }
    ).reset_index(drop=True)


def loss_law(theta: Array, n: Array, d: Array) -> Array:
    """L(N, D) in bits per byte for theta = (E, ln a, ln alpha, ln b, ln beta), n in 1e9 and d in 1e11."""
    e, ln_a, ln_alpha, ln_b, ln_beta = theta
    law: Array = e + np.exp(ln_a - np.exp(ln_alpha) * np.log(n)) + np.exp(ln_b - np.exp(ln_beta) * np.log(d))
    return law


def score_link(phi: Array, bpb: Array) -> Array:
    """S(L) for phi = (top, gamma, l, d), where top = c + d is the ceiling and d the lower end."""
    top, gamma, middle, bottom = phi
    link: Array = bottom + (top - bottom) / (1 + np.exp(gamma * (bpb - middle)))
    return link


def _huber(weights: Array) -> Any:
    """Huber's loss in the form that `least_squares` wants, each residual weighted from outside the loss."""

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
    data: list[tuple[Array, Array, Array]], weights: list[Array], scale: Array, starts: list[Array], pooling: float = POOLING
) -> Array:
    """Fit the loss law to all tasks at once, with exponents drawn together.

    Args:
        data: for each task n (1e9), d (1e11) and bpb of its runs, equally long.
        weights: for each task one weight a run.
        scale: (tasks,) typical size of ln(predicted / measured), which makes tasks comparable.
        starts: first guesses, each (tasks, 5); the best end wins.
        pooling: see `POOLING`.

    Returns:
        (tasks, 5) array of E, ln a, ln alpha, ln b, ln beta.
    """
    k = len(data)
    logs = [(np.log(n), np.log(d), np.log(bpb)) for n, d, bpb in data]
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
    upper = np.tile([0.0, 3.0, np.log(3.0), 3.0, np.log(3.0)], k)
    upper[0::5] = [bpb.min() for _, _, bpb in data]
    loss = _huber(np.concatenate([*weights, np.ones(2 * k)]))
    best = None
    for start in starts:
        result = least_squares(
            residuals_of,
            np.clip(start.ravel(), lower + 1e-9, upper - 1e-9),
            jac=jacobian_of,
            bounds=(lower, upper),
            loss=loss,
            f_scale=HUBER,
            x_scale=np.tile([0.1, 1.0, 0.3, 1.0, 0.3], k),
        )
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None, "at least one start"
    return np.asarray(best.x, dtype=np.float64).reshape(k, 5)


def fit_link(bpb: Array, accuracy: Array, weights: Array, starts: list[Array]) -> Array:
    """Fit the score link of one task to its checkpoints; returns (top, gamma, l, d).

    The ceiling `top` stays at or below 1, and d at or below the lowest score seen, so that no model of the ladder
    falls off its own link.
    """
    lower, upper = np.array([accuracy.max(), 0.1, -1.0, 0.0]), np.array([1.0, 60.0, 3.0, accuracy.min()])

    def residuals(phi: Array) -> Array:
        return score_link(phi, bpb) - accuracy

    def jacobian(phi: Array) -> Array:
        top, gamma, middle, bottom = phi
        share = 1 / (1 + np.exp(gamma * (bpb - middle)))
        slope = (top - bottom) * share * (1 - share)
        stacked: Array = np.stack([share, -slope * (bpb - middle), slope * gamma, 1 - share], axis=1)
        return stacked

    best = None
    for start in starts:
        result = least_squares(
            residuals,
            np.clip(start, lower + 1e-6, upper - 1e-6),
            jac=jacobian,
            bounds=(lower, upper),
            loss=_huber(weights),
            f_scale=SCORE_HUBER,
            x_scale=np.array([0.1, 3.0, 0.2, 0.1]),
        )
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None, "at least one start"
    return np.asarray(best.x, dtype=np.float64)


def _loss_starts(data: list[tuple[Array, Array, Array]]) -> list[Array]:
    """Three guesses that differ in how much of the lowest loss is irreducible."""
    return [
        np.array([[share * bpb.min(), np.log(0.12), np.log(0.4), np.log(0.2), np.log(0.28)] for _, _, bpb in data])
        for share in (0.2, 0.5, 0.75)
    ]


def _link_starts(bpb: Array) -> list[Array]:
    return [np.array([0.9, gamma, middle, 0.25]) for gamma in (3.0, 8.0) for middle in (0.8 * bpb.min(), bpb.min(), float(np.median(bpb)))]


def _r2(predicted: Array, measured: Array) -> float:
    return float(1 - np.sum((predicted - measured) ** 2) / np.sum((measured - measured.mean()) ** 2))


def build(resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit the ladder and return what the reference's file holds.

    The resamples are a Bayesian bootstrap by run (Rubin 1981): each of the 30 runs gets one weight, exponentially
    distributed, the same for all its checkpoints and all tasks, because what is peculiar to a run (its seed, its last
    batches) is common to them. Against drawing runs with replacement it never loses a whole model size.
    The first k resamples do not depend on how many follow.
    """
    table = read_ladder()
    ladder, held_out = table[~table["long"]], table[table["long"] & table["final"]]
    finals = {task: ladder[(ladder["task"] == task) & ladder["final"]] for task in TASKS}
    every = {task: ladder[ladder["task"] == task] for task in TASKS}
    runs = sorted(ladder["run"].unique())
    code = {run: i for i, run in enumerate(runs)}

    data = [(_column(f, "n"), _column(f, "d"), _column(f, "bpb")) for f in finals.values()]
    ones = [np.ones(len(n)) for n, _, _ in data]
    rough = fit_losses(data, ones, np.full(len(data), 0.01), _loss_starts(data))
    misses = [np.log(loss_law(theta, n, d) / bpb) for theta, (n, d, bpb) in zip(rough, data, strict=True)]
    scale = np.array([max(1.4826 * float(np.median(np.abs(miss))), 0.003) for miss in misses])
    thetas = fit_losses(data, ones, scale, [*_loss_starts(data), rough])
    points = [(_column(e, "bpb"), _column(e, "accuracy")) for e in every.values()]
    phis = [fit_link(bpb, accuracy, np.ones(len(bpb)), _link_starts(bpb)) for bpb, accuracy in points]

    rng = np.random.default_rng(SEED)
    loss_codes = [np.array([code[run] for run in f["run"]]) for f in finals.values()]
    link_codes = [np.array([code[run] for run in e["run"]]) for e in every.values()]
    loss_draws, link_draws = [], []
    for _ in range(resamples):
        weight = rng.exponential(size=len(runs))
        loss_draws.append(fit_losses(data, [weight[c] for c in loss_codes], scale, [thetas]))
        link_draws.append(
            [fit_link(bpb, accuracy, weight[c], [phi]) for (bpb, accuracy), c, phi in zip(points, link_codes, phis, strict=True)]
        )

    tasks: dict[str, Any] = {}
    for i, (task, (ladder_name, chance)) in enumerate(TASKS.items()):
        (n, d, bpb), (all_bpb, accuracy) = data[i], points[i]
        beyond = held_out[held_out["task"] == task]
        predicted = loss_law(thetas[i], _column(beyond, "n"), _column(beyond, "d"))
        scored = score_link(phis[i], predicted)
        tasks[task] = {
            "ladder_task": ladder_name,
            "chance": chance,
            "r2_bpb": round(_r2(loss_law(thetas[i], n, d), bpb), 5),
            "r2_score": round(_r2(score_link(phis[i], all_bpb), accuracy), 5),
            "bpb_range": [float(bpb.min()), float(bpb.max())],
            "score_range": [float(accuracy.min()), float(accuracy.max())],
            "held_out": {
                run: {
                    "bpb": b,
                    "bpb_error": round(float(p / b - 1), 5),
                    "score": s,
                    "score_error": round(float(q / s - 1), 5),
                }
                for run, b, p, s, q in zip(beyond["size"], beyond["bpb"], predicted, beyond["accuracy"], scored, strict=True)
            },
            "loss": _rounded(thetas[i]),
            "score": _rounded(phis[i]),
            "loss_resamples": [_rounded(draw[i]) for draw in loss_draws],
            "score_resamples": [_rounded(draw[i]) for draw in link_draws],
        }
    return {
        "name": "olmo-ladder",
        "source": "OLMo model ladder, 190M to 3.2B at 0.5 to 10 x Chinchilla: github.com/allenai/OLMo, branch ladder-1xC, "
        "scripts/scaling/data/peteish-moreeval (Apache-2.0); Bhagia et al. 2024, arXiv 2412.04403. Long runs held out.",
        "convention": "L = E + exp(ln_a) N^-exp(ln_alpha) + exp(ln_b) D^-exp(ln_beta), N in 1e9 parameters without the input embedding, "
        "D in 1e11 tokens, L in bits per byte; S = d + (top - d) / (1 + exp(gamma (L - l))), top = c + d",
        "loss_columns": ["E", "ln_a", "ln_alpha", "ln_b", "ln_beta"],
        "score_columns": ["top", "gamma", "l", "d"],
        "parameters_range": [float(ladder["n"].min() * N_UNIT), float(ladder["n"].max() * N_UNIT)],
        "tokens_range": [float(ladder["d"][ladder["final"]].min() * D_UNIT), float(ladder["d"].max() * D_UNIT)],
        "seed": SEED,
        "pooling": POOLING,
        "tasks": tasks,
    }


def _column(frame: pd.DataFrame, name: str) -> Array:
    return frame[name].to_numpy(dtype=np.float64)


def _rounded(values: Array) -> list[float]:
    """Seven significant digits: far below the fit's own uncertainty, and a file that is read in milliseconds."""
    return [float(f"{value:.7g}") for value in values]


def main() -> None:
    """Write the reference's file into the package's data folder."""
    path = Path(__file__).resolve().parent.parent / "data" / "references" / "olmo-ladder.json"
    built = build()
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in built.items() if key != "tasks"]
    tasks = []
    for task, entry in built["tasks"].items():
        inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        tasks.append(f"{json.dumps(task)}: {{\n{inner}\n}}")
    lines.append('"tasks": {\n' + ",\n".join(tasks) + "\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
