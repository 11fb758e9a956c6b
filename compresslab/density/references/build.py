"""Fit a reference: from a table of models (size, tokens, loss, score) to the content of its file.

Two steps, as in the Densing Law (Xiao et al., arXiv 2412.04315) and in the OLMo ladder's paper (Bhagia et al., arXiv
2412.04403): the loss law L(N, D), then the score link S(L); see `laws`. The form of the law (E = 0, the Densing paper's, or
E > 0) and the sizes up to which it is read are decided by leaving out model sizes (`left_out`); the record holds the errors.

Resamples are a Bayesian bootstrap by run (Rubin 1981): each run gets one weight, exponentially distributed, the same for all
its rows and all tasks, because the effects of a run (its seed, its last batches) are common to them. Unlike drawing runs
with replacement, it never loses a whole model size. Each resample has one form, drawn by the weights of the forms, so that what is read
off the reference contains that choice, too. The first k resamples do not depend on the total number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from compresslab.density.references.fitting import fit_link, fit_losses, link_starts
from compresslab.density.references.laws import D_UNIT, LOSS_COLUMNS, N_UNIT, SCORE_COLUMNS, Array, loss_law, r_squared, score_link
from compresslab.density.references.left_out import FittedLaws, data_of, fit_laws, form_weight, in_file, reach, size_misses
from compresslab.errors import BadInput

RESAMPLES = 200
SEED = 20241206
MIN_SIZES = 4
"""With fewer model sizes nothing tests a law with an exponent and an offset."""

CONVENTION = (
    "L = E + exp(ln_a) N^-exp(ln_alpha) + exp(ln_b) D^-exp(ln_beta), N in 1e9 parameters without a pure input embedding, "
    "D in 1e11 tokens; S = d + (top - d) / (1 + exp(gamma (L - l))), top = c + d"
)

OFFSET, NO_OFFSET = "E > 0", "E = 0"
"""The two forms of the loss law, as the record of a reference names them."""


@dataclass(frozen=True)
class ReferenceSpec:
    """Name, source and task settings of a reference.

    Attributes:
        unit: of the loss, "bits per byte" or "bits per word".
        chance: accuracy of a uniform guess, by task.
        latent: task -> the task whose loss its score is linked to; by default its own.
        origin: task -> its name in the source.
    """

    name: str
    source: str
    unit: str
    chance: Mapping[str, float | None]
    latent: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)


def build(spec: ReferenceSpec, table: pd.DataFrame, held_out: pd.DataFrame | None = None, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit a reference and return the content of its file.

    Args:
        table: one row for each model (or checkpoint) and task: task, run, size (a label; rows of one size are left out together),
            n (1e9), d (1e11), loss and score (NaN if missing). All tasks with losses have losses of the same runs.
        held_out: rows of the same form, which are predicted and not fitted.

    Raises:
        BadInput: too few sizes, or invalid losses or scores.
    """
    check(table, spec.latent)
    runs = sorted(table["run"].unique())
    run_index = {run: i for i, run in enumerate(runs)}
    with_loss = [task for task in spec.chance if _rows(table, task, "loss").shape[0]]
    by_task = {task: _rows(table, task, "loss") for task in with_loss}
    forms, fits = choose_form(with_loss, by_task)
    laws = fits[forms["chosen"]]
    loss_codes = [np.array([run_index[run] for run in by_task[task]["run"]]) for task in with_loss]

    # Scores that are all equal do not determine a link.
    linked = [task for task in spec.chance if _rows(table, task, "score")["score"].nunique() > 1]
    points = {task: _link_points(spec, table, task) for task in linked}
    phis = {task: fit_link(loss, score, np.ones(len(loss)), link_starts(loss)) for task, (loss, score, _) in points.items()}
    link_codes = {task: np.array([run_index[run] for run in names]) for task, (_, _, names) in points.items()}

    rng = np.random.default_rng(SEED)
    law_draws, link_draws = [], []
    for _ in range(resamples):
        weight, share = rng.exponential(size=len(runs)), rng.random()
        drawn = fits[NO_OFFSET if share < forms[f"weight of {NO_OFFSET}"] else OFFSET]
        law_draws.append(
            fit_losses(drawn.data, [weight[c] for c in loss_codes], drawn.scale, [drawn.thetas], irreducible=drawn.irreducible)
        )
        link_draws.append(
            {task: fit_link(loss, score, weight[link_codes[task]], [phis[task]]) for task, (loss, score, _) in points.items()}
        )

    law_of = {task: i for i, task in enumerate(with_loss)}
    tasks: dict[str, Any] = {}
    for task in spec.chance:
        if task not in law_of and task not in points:
            raise BadInput(f"the table has no loss and no score of {task}")
        latent = task if task in law_of else spec.latent.get(task, task)
        if latent not in law_of:
            raise BadInput(f"{task} has scores but no losses to link them to; give its losses, or name the task whose losses it follows")
        theta = laws.thetas[law_of[latent]]
        entry: dict[str, Any] = {
            "origin": spec.origin.get(task, task),
            "latent": latent,
            "chance": spec.chance[task],
            "loss": rounded(theta),
            "score": rounded(phis[task]) if task in phis else None,
        }
        entry |= _diagnostics(task, by_task.get(task), theta, points.get(task), phis.get(task), table)
        entry["held_out"] = _held_out(held_out, task, theta, phis.get(task))
        entry["loss_resamples"] = [rounded(draw[law_of[latent]]) for draw in law_draws]
        entry["score_resamples"] = [rounded(draw[task]) for draw in link_draws] if task in phis else None
        tasks[task] = entry
    return {
        "name": spec.name,
        "source": spec.source,
        "kind": "ladder",
        "unit": spec.unit,
        "convention": CONVENTION,
        "loss_columns": list(LOSS_COLUMNS),
        "score_columns": list(SCORE_COLUMNS),
        "parameters_range": [float(table["n"].min() * N_UNIT), float(table["n"].max() * N_UNIT)],
        "tokens_range": [float(table["d"].min() * D_UNIT), float(table["d"].max() * D_UNIT)],
        "runs": len(runs),
        **in_file(reach(with_loss, by_task, irreducible=laws.irreducible)),
        "seed": SEED,
        "form": forms,
        "tasks": tasks,
    }


def choose_form(tasks: Sequence[str], by_task: Mapping[str, pd.DataFrame]) -> tuple[dict[str, Any], dict[str, FittedLaws]]:
    """Fit both forms of the loss law, choose the one that predicts left-out sizes better, and weigh them.

    Returns:
        The record of the choice (root mean square of ln(predicted / measured) over left-out sizes, by form; the weight of E = 0), and
        the laws of each form.
    """
    misses = {form: size_misses(tasks, by_task, irreducible=form == OFFSET) for form in (OFFSET, NO_OFFSET)}
    errors = {form: float(np.sqrt(np.mean(np.concatenate([miss.ravel() for miss in found]) ** 2))) for form, found in misses.items()}
    record = {
        "chosen": OFFSET if errors[OFFSET] <= errors[NO_OFFSET] else NO_OFFSET,
        "rule": "root mean square of ln(predicted / measured loss) over left-out model sizes",
        OFFSET: round(errors[OFFSET], 5),
        NO_OFFSET: round(errors[NO_OFFSET], 5),
        f"weight of {NO_OFFSET}": round(form_weight(misses[NO_OFFSET], misses[OFFSET]), 3),
    }
    data = [data_of(by_task[task]) for task in tasks]
    fits = {form: fit_laws(tasks, data, irreducible=form == OFFSET) for form in (OFFSET, NO_OFFSET)}
    laws = fits[str(record["chosen"])]
    for task, theta, (n, d, loss) in zip(tasks, laws.thetas, laws.data, strict=True):
        if r_squared(loss_law(theta, n, d), loss) <= 0:
            raise BadInput(f"{task}: the losses do not fall with size or tokens (the law explains nothing of them), so they are no ruler")
    return record, fits


def check(table: pd.DataFrame, latent: Mapping[str, str] | None = None) -> None:
    """Check that curves can be fitted to a table. `latent` as in `ReferenceSpec`.

    Raises:
        BadInput: the error and its row.
    """
    for column, maximum in (("n", np.inf), ("d", np.inf), ("loss", np.inf), ("score", 1.0)):
        values = table[column].to_numpy(dtype=np.float64)
        lowest = 0.0 if column == "score" else np.nextafter(0.0, 1.0)
        missing = np.isnan(values) if column in ("loss", "score") else np.zeros(len(values), dtype=bool)
        bad = ~missing & ~(np.isfinite(values) & (values >= lowest) & (values <= maximum))
        if bad.any():
            row = table.iloc[int(np.argmax(bad))]
            allowed = "between 0 and 1" if column == "score" else "positive and finite"
            raise BadInput(f"{row['run']}, {row['task']}: {column} is {row[column]}; it must be {allowed}")
    if table.empty or not table["loss"].notna().any():
        raise BadInput("the table has no losses; a reference needs the loss of at least one task, and scores can be linked to it")
    for task, rows in table[table["loss"].notna()].groupby("task"):
        sizes = rows["n"].nunique()
        if sizes < MIN_SIZES:
            raise BadInput(f"{task} has losses of {sizes} model sizes; a reference needs at least {MIN_SIZES}")
        if rows["loss"].nunique() < MIN_SIZES:
            raise BadInput(f"{task}: the losses of {len(rows)} models are nearly all the same, and no curve follows from that")
    runs = {str(task): sorted(zip(rows["run"], rows["d"], strict=True)) for task, rows in table[table["loss"].notna()].groupby("task")}
    first = next(iter(runs))
    for task, runs_of_task in runs.items():
        if runs_of_task != runs[first]:
            missing = sorted({run for run, _ in set(runs_of_task) ^ set(runs[first])})
            raise BadInput(
                f"{task} and {first} have losses of different models ({', '.join(map(str, missing[:5]))}); give the same for all tasks"
            )
    scored = table[table["score"].notna() & ~table["task"].isin(list(runs))]
    if latent is not None and (lacking := sorted({str(t) for t in scored["task"]} - set(latent))):
        raise BadInput(f"{', '.join(lacking)}: scores but no losses to link them to; give the losses too")


def rounded(values: Array) -> list[float]:
    """Values rounded to seven significant digits, far below the fit's uncertainty, which keeps the file small."""
    return [float(f"{value:.7g}") for value in values]


def _rows(table: pd.DataFrame, task: str, column: str) -> pd.DataFrame:
    return table[(table["task"] == task) & table[column].notna()]


def _link_points(spec: ReferenceSpec, table: pd.DataFrame, task: str) -> tuple[Array, Array, list[str]]:
    """Loss, score and run of the rows that a task's link is fitted on."""
    scored = _rows(table, task, "score")
    if scored["loss"].notna().all():
        return scored["loss"].to_numpy(dtype=np.float64), scored["score"].to_numpy(dtype=np.float64), list(scored["run"])
    losses = _rows(table, spec.latent.get(task, task), "loss")[["run", "d", "loss"]]
    joined = scored.drop(columns="loss").merge(losses, on=["run", "d"])
    return joined["loss"].to_numpy(dtype=np.float64), joined["score"].to_numpy(dtype=np.float64), list(joined["run"])


def _diagnostics(
    task: str,
    rows: pd.DataFrame | None,
    theta: Array,
    points: tuple[Array, Array, list[str]] | None,
    phi: Array | None,
    table: pd.DataFrame,
) -> dict[str, Any]:
    """R2 of the curves, the ranges of the data, and the residuals of each run: ln loss and score, measured - fitted.

    The residuals are widened by sqrt(n / (n - 5)), because the coefficients were fitted to the same runs.
    """
    result: dict[str, Any] = {
        "r2_loss": None,
        "r2_score": None,
        "loss_range": None,
        "score_range": None,
        "loss_left": None,
        "score_left": None,
    }
    if rows is not None:
        n, d, loss = data_of(rows)
        law = loss_law(theta, n, d)
        result |= {"r2_loss": round(r_squared(law, loss), 5), "loss_range": [float(loss.min()), float(loss.max())]}
        result["loss_left"] = _widened_residuals(np.log(loss / law))
    if points is not None and phi is not None:
        loss, score, _ = points
        result |= {"r2_score": round(r_squared(score_link(phi, loss), score), 5), "score_range": [float(score.min()), float(score.max())]}
        scored = _rows(table, task, "score")
        predicted = score_link(phi, loss_law(theta, scored["n"].to_numpy(dtype=np.float64), scored["d"].to_numpy(dtype=np.float64)))
        result["score_left"] = _widened_residuals(scored["score"].to_numpy(dtype=np.float64) - predicted)
    return result


def _widened_residuals(values: Array) -> list[float]:
    return rounded(values * np.sqrt(len(values) / max(len(values) - 5, 1)))


def _held_out(held_out: pd.DataFrame | None, task: str, theta: Array, phi: Array | None) -> dict[str, dict[str, float]]:
    """Predicted / measured - 1 of the held-out runs: the loss, the score, and the score given the measured loss."""
    if held_out is None:
        return {}
    result = {}
    rows = held_out[held_out["task"] == task]
    for run, n, d, loss, score in zip(
        rows["size"], *(rows[name].to_numpy(dtype=np.float64) for name in ("n", "d", "loss", "score")), strict=True
    ):
        predicted = float(loss_law(theta, n, d))
        entry = {"loss": float(loss), "loss_error": round(predicted / float(loss) - 1, 5)}
        if phi is not None:
            chained, from_measured = (float(value) for value in score_link(phi, np.array([predicted, loss])))
            entry |= {"score": float(score), "score_error": round(chained / float(score) - 1, 5)}
            entry["score_error_given_loss"] = round(from_measured / float(score) - 1, 5)
        result[str(run)] = entry
    return result


def reference_json(built: dict[str, Any]) -> str:
    """A reference as JSON text with one field per line, so that a diff shows the changes of a fit."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in built.items() if key != "tasks"]
    tasks = []
    for task, entry in built["tasks"].items():
        inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        tasks.append(f"{json.dumps(task)}: {{\n{inner}\n}}")
    lines.append('"tasks": {\n' + ",\n".join(tasks) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
