"""The ruler: a fitted family of models whose density is 1 by definition.

Loss: L(N, D) = E + a N^-alpha + b D^-beta, in bits per byte, with N in 1e9 parameters (all but a pure input embedding)
and D in 1e11 training tokens. Score: S(L) = c / (1 + exp(gamma (L - l))) + d with gamma > 0: S falls from c + d to d as
the loss grows. The Densing Law (arXiv 2412.04315) writes exp(-gamma (L - l)), so its gamma is the negative of ours.

Inverse, with D0 the token budget given to the reference: L_hat = l + ln((c + d - S) / (S - d)) / gamma and
N_hat = ((L - E - b D0^-beta) / a)^(-1/alpha).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from compresslab.density.intervals import Array, on_the_ruler
from compresslab.density.names import reference_names, unknown_reference
from compresslab.errors import BadInput
from compresslab.records import Interval

N_UNIT = 1e9
D_UNIT = 1e11

REACH = 20.0
"""How far beyond its fitted sizes a reference is still read (flagged `extrapolated`); further out it gives a bound.

The Densing paper reads 70B models off a ladder that ends at 0.83B, a factor of 85. SmolLM2-135M after losing a fifth of
its layers needs about 10 below the OLMo ladder's 190M. Twenty covers that; beyond it the power law, fitted over a factor
of 17, would be trusted over more than it was ever seen on.
"""


@dataclass(frozen=True, eq=False)
class TaskFit:
    """One task's coefficients and diagnostics.

    Attributes:
        loss: (1 + resamples, 5) E, ln a, ln alpha, ln b, ln beta; row 0 is the fit, the others resample it by run.
        score: (1 + resamples, 4) c + d, gamma, l, d; likewise.
        chance: accuracy of a uniform guess.
        r2_bpb: of the loss law on the last checkpoints it was fitted on; r2_score: of the link on its checkpoints.
        bpb_range, score_range: lowest and highest value in the fit.
        held_out: per run kept out of the fit: bpb, bpb_error, score, score_error (predicted / measured - 1).
    """

    loss: Array
    score: Array
    chance: float
    r2_bpb: float
    r2_score: float
    bpb_range: tuple[float, float]
    score_range: tuple[float, float]
    held_out: dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Reference:
    """A fitted reference. `Reference.load(name)` reads one that ships with the package.

    Attributes:
        parameters_range, tokens_range: smallest and largest N and D in the fit, in parameters and tokens.
        tasks: by our task name.
    """

    name: str
    source: str
    convention: str
    parameters_range: tuple[float, float]
    tokens_range: tuple[float, float]
    tasks: dict[str, TaskFit]

    @classmethod
    def names(cls) -> list[str]:
        """The references that ship with the package."""
        return reference_names()

    @classmethod
    def load(cls, name: str) -> Reference:
        """Read a reference's coefficients; nothing is fitted. Raises BadInput for a name that is not there."""
        if problem := unknown_reference(name):
            raise BadInput(problem)
        raw = json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8"))
        tasks = {
            task: TaskFit(
                loss=np.array([entry["loss"], *entry["loss_resamples"]], dtype=np.float64),
                score=np.array([entry["score"], *entry["score_resamples"]], dtype=np.float64),
                chance=entry["chance"],
                r2_bpb=entry["r2_bpb"],
                r2_score=entry["r2_score"],
                bpb_range=tuple(entry["bpb_range"]),
                score_range=tuple(entry["score_range"]),
                held_out=entry["held_out"],
            )
            for task, entry in raw["tasks"].items()
        }
        return cls(raw["name"], raw["source"], raw["convention"], tuple(raw["parameters_range"]), tuple(raw["tokens_range"]), tasks)

    @property
    def resamples(self) -> int:
        """How many resampled fits each task carries."""
        return len(next(iter(self.tasks.values())).loss) - 1

    def task(self, name: str) -> TaskFit:
        """The fit of one task. Raises BadInput for a task that the reference lacks."""
        if name not in self.tasks:
            raise BadInput(f"the reference {self.name} has no task {name!r} (it has: {', '.join(sorted(self.tasks))})")
        return self.tasks[name]

    def predict(self, task: str, params: float, tokens: float) -> tuple[float, float]:
        """Loss (bits per byte) and score that the reference has at `params` parameters and `tokens` tokens."""
        e, ln_a, ln_alpha, ln_b, ln_beta = self.task(task).loss[0]
        n, d = _positive("params", params) / N_UNIT, _positive("tokens", tokens) / D_UNIT
        bpb = float(e + np.exp(ln_a) * n ** -np.exp(ln_alpha) + np.exp(ln_b) * d ** -np.exp(ln_beta))
        top, gamma, middle, bottom = self.task(task).score[0]
        return bpb, float(bottom + (top - bottom) / (1 + np.exp(gamma * (bpb - middle))))

    def ln_params(self, task: str, bpb: Array, tokens: float, rows: NDArray[np.intp] | int = 0) -> Array:
        """ln N_hat (N in parameters) for losses in bits per byte, elementwise with rows of the resampled fits.

        A loss at or below E + b D0^-beta, which no size reaches, gives +inf; a loss of +inf gives -inf.
        """
        e, ln_a, ln_alpha, ln_b, ln_beta = np.moveaxis(self.task(task).loss[rows], -1, 0)
        left = bpb - e - np.exp(ln_b - np.exp(ln_beta) * math.log(tokens / D_UNIT))
        reachable = left > 0
        ln_n = (ln_a - np.log(np.where(reachable, left, 1.0))) / np.exp(ln_alpha) + math.log(N_UNIT)
        return np.where(reachable, ln_n, np.inf)

    def loss_of_score(self, task: str, score: Array, rows: NDArray[np.intp] | int = 0) -> Array:
        """L_hat in bits per byte for scores, elementwise with rows of the resampled fits.

        A score at or below the link's lower end gives +inf, one at or above its ceiling -inf.
        """
        top, gamma, middle, bottom = np.moveaxis(self.task(task).score[rows], -1, 0)
        inside = (score > bottom) & (score < top)
        odds = np.where(inside, (top - score) / np.where(inside, score - bottom, 1.0), 1.0)
        loss = middle + np.log(odds) / gamma
        return np.where(inside, loss, np.where(score <= bottom, np.inf, -np.inf))

    def effective_params(self, *, task: str, bpb: float | None = None, score: float | None = None, tokens: float = 1e12) -> Interval:
        """N_hat in parameters: the size at which the reference, trained on `tokens` tokens, has this loss or score.

        The interval is the reference's own uncertainty (resampled fits); the uncertainty of `bpb` or `score` is the
        caller's. `extrapolated` is set outside the fitted sizes; beyond `REACH` times that the value is a bound, and
        so is that of a loss that no size reaches or of a score outside the link (at or below its lower end, at or
        above its ceiling).

        Args:
            task: our task name.
            bpb: bits per byte of the gold continuation, counted without its leading space.
            score: accuracy, length-normalised by characters.
            tokens: D0, the reference's training tokens.

        Raises:
            BadInput: unknown task, not exactly one of bpb and score, or a value that is not a loss or a score.
        """
        if (bpb is None) == (score is None):
            raise BadInput("give exactly one of bpb and score")
        _positive("tokens", tokens)
        rows = np.arange(len(self.task(task).loss))
        if bpb is not None:
            if not (math.isfinite(bpb) and bpb >= 0):
                raise BadInput(f"bpb of {task} is {bpb}; a loss is finite and not negative")
            loss = np.full(rows.size, float(bpb))
        else:
            assert score is not None, "one of the two is given"
            if not 0 <= score <= 1:
                raise BadInput(f"score of {task} is {score}; a score lies in [0, 1]")
            loss = self.loss_of_score(task, np.full(rows.size, float(score)), rows)
        ln_n = self.ln_params(task, loss, tokens, rows)
        return on_the_ruler(float(ln_n[0]), ln_n[1:], self.parameters_range, REACH).interval()


def _folder() -> Traversable:
    return resources.files("compresslab") / "data" / "references"


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise BadInput(f"{name} is {value}; it must be a positive number")
    return value
