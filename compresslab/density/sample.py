"""What is drawn and read once for a whole study, and the ratio of two of its variants by any ruler, budget, estimator and tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from compresslab.catalog.hardware import Hardware
from compresslab.density.capability import Ruler, TaskCapability, bits_count, combine, measure_task
from compresslab.density.draws import Answers, Bench, Draws, Measured, draw, stream
from compresslab.density.intervals import LogEstimate, ratio, spread
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.time.inference_time import n_time
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Estimator, Shape, Size


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that is drawn once for a study, and what has been read off which ruler.

    Attributes:
        variants: by name. times: N_time by variant and hardware.
    """

    variants: dict[str, Measured]
    bench: Bench
    config: DensityConfig
    times: dict[str, dict[str, float]]
    known: dict[tuple[str, float, bool, bool, str, str], TaskCapability]

    def ruler(self, reference: Reference, tokens: float) -> Ruler:
        """How this study reads a reference."""
        rows = stream(self.config.seed, "reference").integers(reference.resamples, size=self.config.resamples) + 1
        return Ruler(reference, tokens, rows, self.shares(""))

    def shares(self, owner: str) -> Array:
        """(resamples,) in [0, 1): which of a reference's runs lends its scatter. Measured variants share one choice, published models
        have one each, but for those that are the same trained weights."""
        return stream(self.config.seed, f"scatter/{owner}").random(self.config.resamples)

    def capability(self, ruler: Ruler, variant: str, task: str) -> TaskCapability:
        """N_hat of a variant on a task; read once for each ruler."""
        key = (ruler.reference.name, ruler.tokens, ruler.straight, ruler.strays, variant, task)
        if key not in self.known:
            own = self.variants[variant]
            if own.published or ruler.strays:
                ruler = replace(ruler, strays=True, shares=self.shares(own.same_as or own.name))
            self.known[key] = measure_task(ruler, task, self.bench[variant, task])
        return self.known[key]

    def effective(
        self, ruler: Ruler, child: str, parent: str, tasks: Iterable[str], estimator: Estimator, *, alike: bool = False
    ) -> LogEstimate | None:
        """ln of N_hat child / N_hat parent over tasks. `alike`: every benchmark of a table weighs the same."""
        published = bool(self.variants[child].published) and not alike
        return combine(self.ratios(ruler, child, parent, tasks, estimator), published=published)

    def ratios(self, ruler: Ruler, child: str, parent: str, tasks: Iterable[str], estimator: Estimator) -> dict[str, LogEstimate | None]:
        """ln of N_hat child / N_hat parent on each task."""
        return {task: task_ratio(self.capability(ruler, child, task), self.capability(ruler, parent, task), estimator) for task in tasks}

    def spread_of(
        self, what: Literal["items", "ruler"], ruler: Ruler, child: str, parent: str, tasks: list[str], estimator: Estimator
    ) -> float:
        """Standard deviation of ln r from one source alone: the items drawn, or the ruler (its fit, and scatter where r holds it)."""
        bench = self.bench
        if what == "items":
            ruler = replace(ruler, rows=np.zeros_like(ruler.rows), exact=True)
        else:
            bench = {(name, task): _certain(self.bench[name, task]) for name in (child, parent) for task in tasks}
        apart = replace(self, bench=bench, known={})  # nothing that was read from all sources counts here
        estimate = apart.effective(ruler, child, parent, tasks, estimator)
        return math.inf if estimate is None else spread(estimate)


def prepare(variants: list[Measured], config: DensityConfig, hardware: list[Hardware]) -> Study:
    """Check the variants and draw their items."""
    by_name = {variant.name: variant for variant in variants}
    if len(by_name) != len(variants):
        raise BadInput("two variants have the same name")
    for variant in variants:
        if variant.size.counted <= 0 or variant.size.effective_bits <= 0:
            raise BadInput(f"{variant.name}: {variant.size.counted} parameters of {variant.size.effective_bits} bits")
    times = {v.name: {h.name: n_time(v.shape, v.size, h, config.workload, _family(v, by_name)) for h in hardware} for v in variants}
    return Study(by_name, draw(variants, config.resamples, config.seed), config, times, {})


def _certain(answers: Answers) -> Answers:
    """The same answers as if their means were known exactly."""

    def fixed(draws: Draws) -> Draws:
        return replace(draws, means=np.full_like(draws.means, draws.mean))

    return Answers({unit: fixed(draws) for unit, draws in answers.losses.items()}, fixed(answers.score))


def _family(variant: Measured, by_name: Mapping[str, Measured]) -> tuple[Shape, Size]:
    """What N_time is counted in: the root's family, or the variant's own where the root is not there."""
    root = by_name.get(variant.root, variant)
    return root.shape, root.size


def task_ratio(child: TaskCapability, parent: TaskCapability, estimator: Estimator) -> LogEstimate | None:
    """N_hat child / N_hat parent on one task, or `None` where one of them is missing or both are the same bound."""
    ours, theirs = child.by(estimator), parent.by(estimator)
    return None if ours is None or theirs is None else ratio(ours, theirs)


def counts(study: Study, child: Measured, parent: Measured) -> dict[str, float]:
    """N child / N parent by every count of N; times by hardware as `time/<hardware>`."""
    times = {f"time/{name}": n / study.times[parent.name][name] for name, n in study.times[child.name].items()}
    return {
        "params": child.size.counted / parent.size.counted,
        "bits": bits_count(child.size) / bits_count(parent.size),
        "active": child.size.active / parent.size.active,
        **times,
    }
