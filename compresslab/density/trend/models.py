"""The dated base models of a trend, with the draws of their densities."""

from __future__ import annotations

import csv
import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from compresslab.catalog.published_scores import BENCHMARKS, Score, all_scores, weights
from compresslab.catalog.published_settings import TASKS
from compresslab.catalog.published_shapes import dimensions
from compresslab.density.capability import Ruler, combine, measure_task
from compresslab.density.draws import Draws, TaskDraws, draw_published_score, random_stream
from compresslab.density.intervals import LogEstimate, spread, standard_deviation
from compresslab.density.references.budget import default_budget
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.synthesis import weigh
from compresslab.density.trend.fits import ABOVE, BELOW, PLAIN, History

SIDES = {"<": BELOW, "": PLAIN, ">": ABOVE}
OWN_MODELS = ("none", "distill", "prune+distill")
"""Compressions of models that were released as models of their own."""

FIT_DRAWS = 40
"""Resampled fits of the reference from which the error that all models share is taken."""


@dataclass(frozen=True, eq=False)
class Reading:
    """ln density of one model, with its draws.

    Attributes:
        fit_draws: ln density by each drawn fit of the reference, without the model's own errors and the differences between benchmarks.
    """

    estimate: LogEstimate
    fit_draws: Array


@dataclass(frozen=True, eq=False)
class DatedModel:
    """A model with its ln density over all benchmarks and by each of them.

    Attributes:
        whole: over all benchmarks. by_benchmark: by each that has an estimate.
        limits: ends of the ln density at which the model can be read; beyond them it is a bound.
    """

    model: str
    family: str
    released: datetime.date
    params: float
    table: str
    whole: Reading
    by_benchmark: dict[str, Reading]
    limits: tuple[float, float]
    mmlu: float

    @property
    def estimate(self) -> LogEstimate:
        """ln density over all benchmarks."""
        return self.whole.estimate


@dataclass(frozen=True)
class EarlyModel:
    """A model from before ChatGPT whose MMLU score and date have sources (`data/early_models.csv`)."""

    model: str
    family: str
    params: float
    released: datetime.date
    mmlu: float
    source: str


@cache
def early_models() -> tuple[EarlyModel, ...]:
    """Every model of `data/early_models.csv`."""
    text = (resources.files("compresslab") / "data" / "early_models.csv").read_text("utf-8")
    return tuple(
        EarlyModel(
            row["model"],
            row["family"],
            float(row["params_B"]) * 1e9,
            datetime.date.fromisoformat(row["released"]),
            float(row["mmlu"]) / 100,
            row["score_source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def dated_models(reference: Reference, resamples: int, seed: int, benchmarks: Sequence[str] = tuple(BENCHMARKS)) -> list[DatedModel]:
    """Every dated base model with all of `benchmarks` in one table, in settings that the reference reads.

    Every model is read on the same benchmarks, because the densities of one model differ between benchmarks by more than their errors.
    They are combined as those of a study of published scores are, at its default D0. With MMLU alone the models of `early_models` are
    among the models. If several tables have a model, the one with the median density is used (of two the lower).
    """
    by_model: dict[str, dict[str, dict[str, Score]]] = {}
    for score in all_scores():
        dated = score.kind == "base" and score.released and score.compression in OWN_MODELS
        if dated and score.benchmark in benchmarks and score.task in reference.tasks:
            by_model.setdefault(score.model, {}).setdefault(score.table, {})[score.task] = score
    reader = _Reader(reference, resamples, seed)
    result = []
    for model, tables in by_model.items():
        readings = []
        for table, found in tables.items():
            if {score.benchmark for score in found.values()} != set(benchmarks):
                continue
            first = next(iter(found.values()))
            params = float(weights(model)[0].counted) if model in dimensions() else first.params
            released = datetime.date.fromisoformat(first.released)
            answers = {task: score.score for task, score in found.items()}
            readings.append(reader.read(model, first.family, released, params, table, answers))
        result += _median(readings)
    if set(benchmarks) == {"MMLU"}:
        early = [
            reader.read(one.model, one.family, one.released, one.params, one.source, {"MMLU": one.mmlu})
            for one in early_models()
            if one.model not in by_model
        ]
        result += [model for model in early if model is not None]
    return result


def _median(readings: Iterable[DatedModel | None]) -> list[DatedModel]:
    found = sorted((reading for reading in readings if reading is not None), key=lambda reading: reading.estimate.point)
    return [found[(len(found) - 1) // 2]] if found else []


class _Reader:
    """Reads published scores on a reference, with the same draws of its fits for all models."""

    def __init__(self, reference: Reference, resamples: int, seed: int) -> None:
        self.reference, self.resamples, self.seed = reference, resamples, seed
        self.rows = random_stream(seed, "reference").integers(reference.resamples, size=resamples) + 1

    def read(
        self, model: str, family: str, released: datetime.date, params: float, table: str, answers: Mapping[str, float]
    ) -> DatedModel | None:
        """The density of a model, or `None` if its benchmarks give no estimate together."""
        ruler = Ruler(self.reference, default_budget(), self.rows, (random_stream(self.seed, f"scatter/{model}").random(self.resamples),))
        drawn = {task: draw_published_score(model, task, score, self.resamples, self.seed) for task, score in answers.items()}
        parts = {task: measure_task(ruler, task, one).by_score_with_scatter for task, one in drawn.items()}
        estimate = combine(parts, published=True)
        if estimate is None:
            return None
        first, last = self.reference.readable
        shifts = self._fit_shifts(answers, parts)
        return DatedModel(
            model=model,
            family=family,
            released=released,
            params=params,
            table=table,
            whole=_reading(estimate, params, self._joined(parts, shifts)),
            by_benchmark={
                TASKS[task].benchmark: _reading(part, params, shifts.get(task)) for task, part in parts.items() if part is not None
            },
            limits=(math.log(first / params), math.log(last / params)),
            mmlu=answers.get("MMLU", float("nan")),
        )

    def _fit_shifts(self, answers: Mapping[str, float], parts: Mapping[str, LogEstimate | None]) -> dict[str, Array]:
        """By how much each of the first drawn fits moves ln N_hat by each benchmark that gives no bound."""
        rows = self.rows[:FIT_DRAWS]
        ruler = Ruler(self.reference, default_budget(), rows, (), without_scatter=True)
        shifts = {}
        for task in (task for task, part in parts.items() if part is not None and not part.bound):
            exact = Draws(answers[task], np.full(len(rows), answers[task]), None, "")
            if (drawn := measure_task(ruler, task, TaskDraws({}, exact)).by_score) is not None:
                shifts[task] = drawn.lower - drawn.point
        return shifts

    def _joined(self, parts: Mapping[str, LogEstimate | None], shifts: Mapping[str, Array]) -> Array:
        """By how much each drawn fit moves ln N_hat over all benchmarks, NaN for one that cannot reach a score.

        Each fit's readings are combined anew. Their differences are no error of the fit; the estimate's own error contains them.
        """
        plain = {task: part for task in shifts if (part := parts[task]) is not None}
        known = {task: part for task, part in plain.items() if np.isfinite(standard_deviation(part))} or plain
        if not known:
            return np.full(FIT_DRAWS, np.nan)
        points = np.array([part.point for part in known.values()])
        drawn = points + np.transpose([shifts[task] for task in known])
        errors = np.array([standard_deviation(part) for part in known.values()])
        variances = errors**2 if np.isfinite(errors).all() else np.ones_like(errors)
        means = [weigh(by_fit, variances)[0] @ by_fit if np.isfinite(by_fit).all() else np.nan for by_fit in (points, *drawn)]
        return np.array(means[1:]) - means[0]


def _reading(estimate: LogEstimate, params: float, shifts: Array | None) -> Reading:
    """`shifts` is `None` for a bound, which stays where it is."""
    over = estimate.over(params)
    return Reading(over, over.point + (np.zeros(FIT_DRAWS) if shifts is None else shifts))


def history(models: Sequence[DatedModel]) -> History:
    """The density of each model over all its benchmarks."""
    return _history([(model, "", model.whole) for model in models])


def history_by_benchmark(models: Sequence[DatedModel]) -> History:
    """The density of each model by each of its benchmarks."""
    return _history([(model, benchmark, one) for model in models for benchmark, one in model.by_benchmark.items()])


def _history(readings: Sequence[tuple[DatedModel, str, Reading]]) -> History:
    """A release is a family on a day, a line of models its families of all versions."""
    models, names, found = zip(*readings, strict=True)
    benchmarks, sides = _numbers(names), np.array([SIDES[one.estimate.bound] for one in found])
    logs, errors = np.array([one.estimate.point for one in found]), np.array([_error(one.estimate) for one in found])
    # A bound has draws on one side only, which give no spread; its score is as uncertain as the others'.
    for number in np.unique(benchmarks):
        own, known = benchmarks == number, np.isfinite(errors)
        errors[own & ~known] = np.median(errors[own & known]) if (own & known).any() else 0.0
    lowest, highest = np.transpose([model.limits for model in models])
    return History(
        days=np.array([float(model.released.toordinal()) for model in models]),
        logs=logs,
        errors=errors,
        sides=sides,
        # A mean with a bound in it is a bound within the limits of its benchmarks.
        lowest=np.where(sides == BELOW, logs, lowest),
        highest=np.where(sides == ABOVE, logs, highest),
        models=_numbers([model.model for model in models]),
        releases=_numbers([f"{model.family}/{model.released}" for model in models]),
        lines=_numbers([line_of_models(model.family) for model in models]),
        benchmarks=benchmarks,
    )


def fit_draws(models: Sequence[DatedModel], *, by_benchmark: bool) -> Array:
    """(readings, fits) ln density by each drawn fit, in the order of `history_by_benchmark` or of `history`."""
    kept = [one for model in models for one in (model.by_benchmark.values() if by_benchmark else [model.whole])]
    return np.stack([one.fit_draws for one in kept])


def _error(estimate: LogEstimate) -> float:
    """Standard deviation of a reading; the distance to the known end of its central 68% if the other end is unbounded."""
    if np.isfinite(deviation := spread(estimate)) or estimate.bound:
        return deviation
    ends = np.nanquantile(estimate.lower, [0.16, 0.84], method="nearest")
    distances = np.abs(ends - estimate.point)
    return float(np.max(distances, where=np.isfinite(distances), initial=0.0)) or math.inf


def line_of_models(family: str) -> str:
    """The name of a family without its version: Qwen for Qwen2.5."""
    match = re.match(r"[A-Za-z]+", family)
    return match.group() if match else family


def _numbers(labels: Sequence[str]) -> NDArray[np.int64]:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels])
