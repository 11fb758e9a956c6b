"""The reference: a fitted family of models whose density is 1 by definition.

The curves and their sign convention are those of `laws`. Inverse, with D0 the token budget given to the reference (`budget`):
L_hat = l + ln((c + d - S) / (S - d)) / gamma, and N_hat solves L(N_hat, D0) = L_hat.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from compresslab.catalog.references import is_file, reference_names, unknown_reference
from compresslab.density.intervals import LogEstimate, bounded_reading
from compresslab.density.references.budget import Budget, default_budget
from compresslab.density.references.form import UNTESTED_REACH, checked
from compresslab.density.references.laws import (
    D_UNIT,
    N_UNIT,
    NO_DATA_TERM,
    Array,
    ln_n_along,
    ln_n_of_loss,
    loss_law,
    loss_of_score,
    score_link,
)
from compresslab.errors import BadInput
from compresslab.inputs import read_json, reason
from compresslab.records import Interval

MARGIN = 1e-6  # in ln D: rounding flags no end of the range
LARGEST_REFERENCE = 16 * 2**20  # bytes of a user's reference file; those that ship have at most 2 MB


@dataclass(frozen=True, eq=False)
class TaskFit:
    """One task's coefficients and diagnostics.

    Attributes:
        loss: (1 + resamples, 5) E, ln a, ln alpha, ln b, ln beta; row 0 is the fit, the others are fits resampled by run.
        score: (1 + resamples, 4) c + d, gamma, l, d, with the same rows. `None` for a task that is read by loss only.
        latent: the task whose loss the score is linked to. reads_loss: a model's own loss on this task can be read.
        chance: accuracy of a uniform guess; `None` for a task without options.
        r2_loss: of the loss law on the fitted data; r2_score: of the link. `None` without a law or link.
        loss_range, score_range: lowest and highest value in the fit.
        loss_residuals, score_residuals: (runs,) ln(measured / fitted loss), and measured - fitted score. Index i is the same run for all
            tasks of a reference.
        held_out: by run kept out of the fit: loss, loss_error, score, score_error, score_error_given_loss (predicted / measured - 1).
        origin: the task's name in the source.
        points: (models, 2) N and score of a family's own models, by rising N; empty for a ladder.
    """

    loss: Array
    score: Array | None
    latent: str
    reads_loss: bool
    chance: float | None
    r2_loss: float | None
    r2_score: float | None
    loss_range: tuple[float, float] | None
    score_range: tuple[float, float] | None
    loss_residuals: Array
    score_residuals: Array
    held_out: dict[str, dict[str, float]]
    origin: str
    points: Array


@dataclass(frozen=True, eq=False)
class Reference:
    """A fitted reference. `Reference.load(name)` reads one that ships with the package, or a file that `reference fit` wrote.

    Attributes:
        kind: "ladder" (measured losses) or "family" (published scores; the loss is latent).
        unit: of the loss: "bits per byte", "bits per word" or "latent".
        form: the chosen form of the law, the rule of the choice, and the errors of each form.
        parameters_range, tokens_range: smallest and largest N and D in the fit, in parameters and tokens.
        reach: factors below and above its fitted sizes up to which it is read (flagged `extrapolated`); beyond it gives a bound.
        reach_tested: of each, whether its own left-out sizes were read that far, or the factor was interpolated from the nearest of them
            (`left_out.reach_of`). `None` for a file that does not say so; one that has no reach either has that of the OLMo ladder.
        runs: number of models in the fit.
        tasks: by compresslab's task name.
    """

    name: str
    source: str
    kind: str
    unit: str
    convention: str
    form: dict[str, Any]
    parameters_range: tuple[float, float]
    tokens_range: tuple[float, float]
    runs: int
    reach: tuple[float, float]
    reach_tested: tuple[bool, bool] | None
    tasks: dict[str, TaskFit]

    @classmethod
    def names(cls) -> list[str]:
        """The references that ship with the package."""
        return reference_names()

    @classmethod
    def load(cls, name: str) -> Reference:
        """Read a reference's coefficients.

        Args:
            name: one that ships with the package, or the path of a .json file that `compresslab reference fit` or `build` wrote.

        Raises:
            BadInput: an unknown name, or a file that is no reference.
        """
        if problem := unknown_reference(name):
            raise BadInput(problem)
        if is_file(name):
            try:
                return cls.parse(read_json(Path(name), LARGEST_REFERENCE))
            except OSError as error:
                raise BadInput(f"the reference {name} cannot be read ({reason(error)}); check the path and its permissions") from error
            except ValidationError as error:
                raise BadInput(f"{name} is no reference ({_first(error)}); `compresslab reference fit TABLE` writes one") from error
            except ValueError as error:
                raise BadInput(f"{name} is no reference ({error}); `compresslab reference fit TABLE` writes one") from error
        return _shipped(name)

    @classmethod
    def parse(cls, raw: Any) -> Reference:
        """A reference from the content of its file. Raises ValueError if it is none."""
        content = checked(raw)
        tasks = {task: _task(task, entry, content["kind"]) for task, entry in content["tasks"].items()}
        return cls(**{**content, "tasks": tasks, "reach": content["reach"] or UNTESTED_REACH})

    @property
    def reach_in_words(self) -> str:
        """How far it is read, in sentences, and whether each end was tested, interpolated, taken from the OLMo ladder, or unknown."""
        below, above = self.reach
        read = f"{self.name} is read up to a factor of {below:.1f} below and {above:.1f} above its sizes; beyond, there is only a bound. "
        if self.reach_tested is None and self.reach != UNTESTED_REACH:
            return f"{read}Its file does not say whether its own models, left out of the fit, were read that far."
        if self.reach_tested is None:
            return (
                f"{read}That is how far the OLMo ladder's left-out models still read as what they are; it was not tested for {self.name}."
            )
        ends = list(zip(("below", "above"), self.reach, self.reach_tested, strict=True))
        tested = [f"{factor:.1f} {side}" for side, factor, directly in ends if directly]
        interpolated = [f"{factor:.1f} {side}" for side, factor, directly in ends if factor > 1 and not directly]
        if tested:
            read += f"Its own models, left out of the fit, test {' and '.join(tested)}. "
        if interpolated:
            read += (
                f"{' and '.join(interpolated)} was not tested but interpolated: the nearest models left out are read wrongly, and their "
                "error is taken to grow in proportion to ln of the distance. "
            )
        return read.rstrip()

    @property
    def resamples(self) -> int:
        """Number of resampled fits of each task."""
        return len(next(iter(self.tasks.values())).loss) - 1

    def task(self, name: str) -> TaskFit:
        """The fit of one task. Raises BadInput for a task that the reference lacks."""
        if name not in self.tasks:
            raise BadInput(f"the reference {self.name} has no task {name!r} (it has: {', '.join(sorted(self.tasks))})")
        return self.tasks[name]

    def predict(self, task: str, params: float, tokens: float) -> tuple[float, float | None]:
        """Loss (in the reference's unit) and score that the reference has at `params` parameters and `tokens` tokens."""
        fit = self.task(task)
        n, d = np.array(_positive("params", params) / N_UNIT), np.array(_positive("tokens", tokens) / D_UNIT)
        loss = loss_law(fit.loss[0], n, d)
        return float(loss), None if fit.score is None else float(score_link(fit.score[0], loss))

    def ln_params(self, task: str, loss: Array, budget: Budget, rows: NDArray[np.intp] | int = 0) -> Array:
        """ln N_hat (N in parameters) for losses in the reference's unit, elementwise with rows of the resampled fits.

        A loss at or below what the largest model reaches gives +inf. A loss of +inf gives -inf.
        """
        theta = self.task(task).loss[rows]
        if budget.tokens is not None:
            return ln_n_of_loss(theta, loss, budget.tokens / D_UNIT) + math.log(N_UNIT)
        assert budget.per_parameter is not None, "one of the two is given"
        return ln_n_along(theta, loss, budget.per_parameter) + math.log(N_UNIT)

    @property
    def readable(self) -> tuple[float, float]:
        """Smallest and largest N_hat that is read, which is `reach` beyond the fitted sizes. In parameters."""
        return self.parameters_range[0] / self.reach[0], self.parameters_range[1] * self.reach[1]

    def reading(self, task: str, point: Array, drawn: Array, budget: Budget, rows: NDArray[np.intp]) -> LogEstimate:
        """ln N_hat of a loss with its draws: a bound beyond `reach`, and `extrapolated` outside the sizes or the token budgets of the fit.

        Args:
            point: the loss. drawn: (draws,) resampled losses, read off the fits `rows`.
        """
        read = bounded_reading(
            float(self.ln_params(task, point, budget)), self.ln_params(task, drawn, budget, rows), self.parameters_range, self.readable
        )
        return read if read.extrapolated or self._knows(task, read.point, budget) else replace(read, extrapolated=True)

    def _knows(self, task: str, ln_params: float, budget: Budget) -> bool:
        """Whether D0 lies within the token budgets of the fit. A law without a data term has none."""
        if self.task(task).loss[0, 3] <= NO_DATA_TERM / 2:
            return True
        tokens = math.log(budget.at(math.exp(ln_params)))
        return math.log(self.tokens_range[0]) - MARGIN <= tokens <= math.log(self.tokens_range[1]) + MARGIN

    def loss_of_score(self, task: str, score: Array, rows: NDArray[np.intp] | int = 0) -> Array:
        """L_hat for scores, elementwise with rows of the resampled fits.

        A score at or below chance or the link's lower end gives +inf, and one at or above its ceiling -inf. Small models score below
        chance on some tasks, but a score in that range does not depend on a model's size.

        Raises:
            BadInput: the reference has no scores of this task.
        """
        fit = self.task(task)
        if fit.score is None:
            raise BadInput(f"the reference {self.name} reads {task} by loss only")
        loss = loss_of_score(fit.score[rows], score)
        return loss if fit.chance is None else np.where(score <= fit.chance, np.inf, loss)

    def effective_params(
        self, *, task: str, bpb: float | None = None, score: float | None = None, budget: Budget | None = None
    ) -> Interval:
        """N_hat in parameters: the size at which the reference, trained on `budget`, has this loss or score.

        The interval contains the reference's own uncertainty (resampled fits) and not that of `bpb` or `score`. `extrapolated` is set
        outside the fitted sizes and token budgets. The value is a bound beyond `reach` times the fitted sizes, for a loss that no size
        reaches, and for a score outside the link (at or below chance or its lower end, at or above its ceiling).

        Args:
            task: compresslab's task name.
            bpb: the loss in the reference's unit; for the OLMo ladder bits per byte of the gold continuation, counted without its
                leading space, for Pythia's LAMBADA bits per word.
            score: accuracy as the reference's source counts it; for the OLMo ladder length-normalised by characters.
            budget: D0; the default is `default_budget`.

        Raises:
            BadInput: an unknown task, both or none of bpb and score, or an invalid loss or score.
        """
        if (bpb is None) == (score is None):
            raise BadInput("give exactly one of bpb and score")
        budget = budget or default_budget()
        rows = np.arange(len(self.task(task).loss))
        if bpb is not None:
            if not self.task(task).reads_loss:
                raise BadInput(f"the reference {self.name} reads {task} by score only")
            if not (math.isfinite(bpb) and bpb >= 0):
                raise BadInput(f"bpb of {task} is {bpb}; a loss is finite and not negative")
            loss: Array = np.full(rows.size, float(bpb))
        else:
            assert score is not None, "one of the two is given"
            if not 0 <= score <= 1:
                raise BadInput(f"score of {task} is {score}; a score lies in [0, 1]")
            loss = self.loss_of_score(task, np.full(rows.size, float(score)), rows)
        return self.reading(task, loss[0], loss[1:], budget, rows[1:]).interval()


@functools.cache
def _shipped(name: str) -> Reference:
    """A reference that ships with the package. Its file is read and checked once."""
    return Reference.parse(json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8")))


def _task(name: str, entry: dict[str, Any], kind: str) -> TaskFit:
    loss = _rows(entry["loss"], entry["loss_resamples"])
    score = None if entry["score"] is None else _rows(entry["score"], entry["score_resamples"])
    loss_range, score_range = entry["loss_range"], entry["score_range"]
    return TaskFit(
        loss=loss,
        score=score,
        latent=entry["latent"],
        reads_loss=kind == "ladder" and entry["latent"] == name and entry["r2_loss"] is not None,
        chance=entry["chance"],
        r2_loss=entry["r2_loss"],
        r2_score=entry["r2_score"],
        loss_range=tuple(loss_range) if loss_range else None,
        score_range=tuple(score_range) if score_range else None,
        loss_residuals=np.array(entry["loss_left"] or [], dtype=np.float64),
        score_residuals=np.array(entry["score_left"] or [], dtype=np.float64),
        held_out=entry["held_out"],
        origin=entry["origin"],
        points=np.array(entry.get("points", []), dtype=np.float64).reshape(-1, 2),
    )


def _rows(first: list[float], others: list[list[float]]) -> Array:
    """The fit and its resamples as one (1 + resamples, coefficients) array."""
    return np.array([first, *others], dtype=np.float64)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong with the content of a file."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")]))


def _folder() -> Traversable:
    return resources.files("compresslab") / "data" / "references"


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise BadInput(f"{name} is {value}; it must be a positive number")
    return value
