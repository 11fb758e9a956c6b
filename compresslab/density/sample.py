"""The draws that a whole study shares, and the ratio of two of its variants by any reference, budget, estimator and tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compresslab.catalog.hardware import Hardware
from compresslab.density.capability import Ruler, TaskCapability, bits_count, combine, combine_published, measure_task
from compresslab.density.draws import Draws, Measured, StudyDraws, TaskDraws, draw, random_stream
from compresslab.density.intervals import DrawnCount, LogEstimate, geometric_mean, ratio
from compresslab.density.references.budget import Budget
from compresslab.density.references.laws import Array
from compresslab.density.references.reference import Reference
from compresslab.density.synthesis import Synthesis
from compresslab.density.time.drawn_times import DrawnTime, drawn_times
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Count, Estimator

SAME = 0.01
"""Bits and shares of active parameters that differ by less than this are the same."""


@dataclass(frozen=True, eq=False)
class DrawnStudy:
    """The draws of a study, and a cache of the capabilities read from them.

    Attributes:
        variants: by name. times: seconds and N_time by variant and hardware.
        capabilities: by reference, budget, interpolate, without_scatter, training runs whose scatter they contain, variant and task.
    """

    variants: dict[str, Measured]
    draws: StudyDraws
    config: DensityConfig
    times: dict[str, dict[str, DrawnTime]]
    capabilities: dict[tuple[str, Budget, bool, bool, tuple[str, ...], str, str], TaskCapability]

    def ruler(self, reference: Reference, budget: Budget) -> Ruler:
        """A reference with this study's draws of its fits, and the scatter that a density contains, the same for all variants."""
        rows = random_stream(self.config.seed, "reference").integers(reference.resamples, size=self.config.resamples) + 1
        return Ruler(reference, budget, rows, (self.scatter_shares(""),))

    def scatter_shares(self, run: str) -> Array:
        """(resamples,) in [0, 1): selects the run of a reference whose residual each draw takes for a training run of the study."""
        return random_stream(self.config.seed, f"scatter/{run}").random(self.config.resamples)

    def capability(self, ruler: Ruler, variant: str, task: str, runs: tuple[str, ...] = ("",)) -> TaskCapability:
        """N_hat of a variant on a task, with the scatter of some training runs; from the cache if it was read before."""
        key = (ruler.reference.name, ruler.budget, ruler.interpolate, ruler.without_scatter, runs, variant, task)
        if key not in self.capabilities:
            if runs != ("",):
                ruler = replace(ruler, scatter_shares=tuple(self.scatter_shares(run) for run in runs))
            self.capabilities[key] = measure_task(ruler, task, self.draws[variant, task])
        return self.capabilities[key]

    def effective(
        self, ruler: Ruler, child: str, parent: str, tasks: Iterable[str], estimator: Estimator, *, equal_weights: bool = False
    ) -> LogEstimate | None:
        """ln of N_hat child / N_hat parent over tasks. `equal_weights`: every benchmark of a table weighs the same."""
        if equal_weights:
            synthesis = self.synthesis(ruler, child, parent, tasks, estimator, equal_weights=True)
            return None if synthesis is None else synthesis.mean
        return combine(self.ratios(ruler, child, parent, tasks, estimator), published=bool(self.variants[child].published))

    def synthesis(
        self, ruler: Ruler, child: str, parent: str, tasks: Iterable[str], estimator: Estimator, *, equal_weights: bool = False
    ) -> Synthesis | None:
        """The synthesis of ln of N_hat child / N_hat parent over published benchmarks."""
        return combine_published(self.ratios(ruler, child, parent, tasks, estimator), equal_weights=equal_weights)

    def ratios(self, ruler: Ruler, child: str, parent: str, tasks: Iterable[str], estimator: Estimator) -> dict[str, LogEstimate | None]:
        """ln of N_hat child / N_hat parent on each task, with the scatter of the training runs that set the two apart.

        If a replicated step sets them apart, N_hat is the geometric mean over the replicates, and the spread between these stands in
        place of the reference's scatter of that step.
        """
        one, other = self.variants[child], self.variants[parent]
        found: dict[str, LogEstimate | None] = {}
        for task in tasks:
            above, below = self._apart(ruler, one, other, task, estimator), self._apart(ruler, other, one, task, estimator)
            found[task] = None if above is None or below is None else ratio(above, below)
        return found

    def _apart(self, ruler: Ruler, variant: Measured, other: Measured, task: str, estimator: Estimator) -> LogEstimate | None:
        """ln N_hat of a variant on a task, with the scatter of the steps behind it and not behind the other."""
        groups = variant.replicates_apart(other)
        own = next((names for names in groups.values() if variant.name in names), [variant.name])
        points = {} if ruler.without_replicates else {step: self.points(ruler, names, task, estimator) for step, names in groups.items()}
        spreads = {step: found for step, found in points.items() if found is not None}
        runs = [run for run in variant.runs_apart(other) if run not in spreads]
        estimates = []
        for number, name in enumerate(own):
            # Replicates of a training run are runs of their own, so each has its own scatter. The first is the run itself.
            named = tuple(f"{run}~{number + 1}" if number and own is groups.get(run) else run for run in runs)
            estimates.append(self.capability(ruler, name, task, named).with_scatter(estimator))
        present = [estimate for estimate in estimates if estimate is not None]
        mean = present[0] if len(own) == len(present) == 1 else geometric_mean(present) if len(present) == len(own) else None
        if mean is None or ruler.without_scatter:
            return mean
        shift = np.zeros(self.config.resamples)
        for step, found in spreads.items():
            shift += self.scatter_between(step, found, of_mean=groups[step] is own)
        return replace(mean, lower=mean.lower + shift, upper=mean.upper + shift) if spreads else mean

    def points(self, ruler: Ruler, replicates: Sequence[str], task: str, estimator: Estimator) -> Array | None:
        """(replicates,) ln N_hat of each on a task; `None` if they have no spread there: one alone, a bound among them, or all equal."""
        found = [self.capability(ruler, name, task, ()).with_scatter(estimator) for name in replicates]
        points = [estimate.point for estimate in found if estimate is not None and not estimate.bound]
        return np.array(points) if len(points) == len(replicates) and len(set(points)) > 1 else None

    def scatter_between(self, step: str, points: Array, *, of_mean: bool) -> Array:
        """(resamples,) draws of the error that comes from the seeds of a replicated step.

        The draws are the deviations of the replicates with random weights, which are the same for all tasks. So their errors are as
        correlated over tasks as the replicates are. For every mean over tasks, the draws are Student's t with k - 1 degrees of freedom
        times the standard deviation between the k replicates.

        Args:
            points: (replicates,) ln N_hat of each.
            of_mean: the estimate is the mean over these replicates, and not a model that was made from one of them.
        """
        count, random = len(points), random_stream(self.config.seed, f"replicates/{step}")
        normal = random.standard_normal((self.config.resamples, count))
        weights = normal / np.sqrt(random.chisquare(count - 1, size=(self.config.resamples, 1)))
        drawn: Array = weights @ (points - points.mean())
        return drawn / math.sqrt(count) if of_mean else drawn

    def of_items(self, ruler: Ruler) -> tuple[DrawnStudy, Ruler]:
        """The study and its ruler with the items as the only source of error."""
        only_items = replace(ruler, fit_rows=np.zeros_like(ruler.fit_rows), without_scatter=True)
        return replace(self, capabilities={}), only_items  # the cache holds estimates with both sources

    def of_ruler(self, ruler: Ruler, child: str, parent: str, tasks: Sequence[str]) -> tuple[DrawnStudy, Ruler]:
        """The study of two variants and its ruler with the reference as the only source: its fit, and its scatter if r contains it."""
        groups = [group for one in (child, parent) for group in self.variants[one].replicates.values()]
        return self.without_items({child, parent, *(name for group in groups for name in group)}, tasks), ruler

    def without_items(self, names: Iterable[str], tasks: Sequence[str]) -> DrawnStudy:
        """The study with every draw of some variants' results equal to their mean."""
        draws = {(name, task): _without_spread(self.draws[name, task]) for name in names for task in tasks}
        return replace(self, draws=draws, capabilities={})


def prepare(variants: list[Measured], config: DensityConfig, hardware: list[Hardware]) -> DrawnStudy:
    """Check the variants and draw their items."""
    by_name = {variant.name: variant for variant in variants}
    if len(by_name) != len(variants):
        raise BadInput("two variants have the same name")
    for variant in variants:
        if variant.size.counted <= 0 or variant.shape.weight_bits <= 0:
            raise BadInput(f"{variant.name}: {variant.size.counted} parameters of {variant.shape.weight_bits} bits")
        for name in (name for group in variant.replicates.values() for name in group):
            if name not in by_name or set(by_name[name].items) != set(variant.items):
                raise BadInput(f"{variant.name}: its replicate {name} is not among the variants, or answered other tasks")
    times = drawn_times(by_name, config, hardware)
    return DrawnStudy(by_name, draw(variants, config.resamples, config.seed), config, times, {})


def _without_spread(answers: TaskDraws) -> TaskDraws:
    """The same results with every draw equal to the mean."""

    def without_spread(draws: Draws) -> Draws:
        return replace(draws, means=np.full_like(draws.means, draws.mean))

    return TaskDraws({unit: without_spread(draws) for unit, draws in answers.losses.items()}, without_spread(answers.score))


def headline_count(child: Measured, parent: Measured) -> Count:
    """The count of N that answers for what was changed between two variants.

    Active parameters between a mixture of experts and a dense model, else stored bits if the bits of a parameter differ (quantization, also
    of a pruned model, since N times bits counts both), else parameters. Between two mixtures all parameters count, because what was
    taken away may be experts that a token does not meet.
    """
    mixtures = [variant.size.active < (1 - SAME) * variant.size.counted for variant in (child, parent)]
    if mixtures[0] != mixtures[1]:
        return "active"
    return "bits" if abs(child.shape.weight_bits / parent.shape.weight_bits - 1) > SAME else "params"


def counts(study: DrawnStudy, child: Measured, parent: Measured) -> dict[str, float | DrawnCount]:
    """N child / N parent by each count of N; N_time has draws and one entry per hardware profile, `time/<hardware>`."""
    times = {f"time/{name}": time.n.over(study.times[parent.name][name].n) for name, time in study.times[child.name].items()}
    return {
        "params": child.size.counted / parent.size.counted,
        "bits": bits_count(child.size, child.shape) / bits_count(parent.size, parent.shape),
        "active": child.size.active / parent.size.active,
        **times,
    }
