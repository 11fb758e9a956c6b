"""Inference time and N_time of every variant of a study, with draws of what is unknown about them.

On a machine whose speeds are modelled, the draws are those of an engine and its errors (`density.time.engine_errors`). On this machine,
where child and parent were timed in turn, the time of the child is that of the parent times the measured ratio. Then only
the measurement has an error: the ratio's median lies between the smallest and the largest of n rounds with a probability of
1 - 2^(1 - n), whatever the distribution of the rounds, and the draws are normal on each side with that probability inside.

Errors that two variants share cancel in the ratio of their times: the engine, the level, the error of their common format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from compresslab.catalog.hardware import THIS_MACHINE, Hardware
from compresslab.density.draws import Measured, random_stream
from compresslab.density.intervals import DrawnCount
from compresslab.density.references.laws import Array
from compresslab.density.time.engine_errors import draw_engines, precision_class
from compresslab.density.time.inference_time import family_seconds, n_time, seconds
from compresslab.recipe.schema import DensityConfig, Workload
from compresslab.records import Shape, Size

Family = tuple[Shape, Size]

CURVE_POINTS = np.linspace(-10.0, 20.0, 601)
"""Log2 of the sizes, in units of the family's own, at which a family's time is computed; between them ln N is linear in ln time."""


MEASURED = "the kernels measured here"


@dataclass(frozen=True, eq=False)
class DrawnTime:
    """Of one variant on one machine.

    Attributes:
        modelled: ln of the modelled seconds of a request.
        relative: ln of its seconds, for ratios only: modelled, or the parent's times the measured ratio.
        n: ln of N_time. engine: what ran, or is assumed to run.
    """

    modelled: DrawnCount
    relative: DrawnCount
    n: DrawnCount
    engine: str


def drawn_times(variants: Mapping[str, Measured], config: DensityConfig, hardware: Sequence[Hardware]) -> dict[str, dict[str, DrawnTime]]:
    """By variant and name of the hardware profile."""
    by_machine = {machine.name: _on_machine(variants, config, machine) for machine in hardware}
    return {name: {machine: times[name] for machine, times in by_machine.items()} for name in variants}


def log_seconds(
    shape: Shape, size: Size, family: Family, workload: Workload, hardware: Hardware, draws: int, seed: int
) -> tuple[float, Array, Array]:
    """ln of the modelled seconds of a request, its draws, and ln of N_time of these draws."""
    return _Modelled(hardware, workload, draws, seed).log_seconds(shape, size, family)


class _Modelled:
    """The draws of modelled times on one machine, with the curves of the families seen so far."""

    def __init__(self, hardware: Hardware, workload: Workload, draws: int, seed: int) -> None:
        self.hardware, self.workload = hardware, workload
        self.engines = draw_engines(hardware, draws, seed)
        self.level, self.size = self.engines.level_errors(), self.engines.size_errors()
        self.curves: dict[tuple[Family, int], Array] = {}

    def log_seconds(self, shape: Shape, size: Size, family: Family) -> tuple[float, Array, Array]:
        """See the function of this name."""
        errors = self.engines.precision_errors(precision_class(shape, size))
        if shape.experts:
            errors = errors + self.engines.precision_errors("mixture")
        plain, family_plain = _in_16_bits(shape), _in_16_bits(family[0])
        drawn, ln_n = np.empty_like(errors), np.empty_like(errors)
        for i in np.unique(self.engines.which):
            profile, here = self.engines.profiles[i], self.engines.which == i
            modelled = math.log(seconds(shape, size, profile, self.workload))
            step = math.log(seconds(plain, size, profile, self.workload) / seconds(family_plain, family[1], profile, self.workload))
            drawn[here] = modelled + errors[here] + self.size[here] * step
            curve = self._curve(family, int(i))
            ln_n[here] = np.interp(drawn[here], curve, CURVE_POINTS * math.log(2) + math.log(family[1].active))
        return math.log(seconds(shape, size, self.hardware, self.workload)), drawn + self.level, ln_n

    def _curve(self, family: Family, engine: int) -> Array:
        """ln of the family's seconds at `CURVE_POINTS`."""
        if (family, engine) not in self.curves:
            profile = self.engines.profiles[engine]
            times = [family_seconds(float(family[1].active * 2**point), family, profile, self.workload) for point in CURVE_POINTS]
            self.curves[family, engine] = np.log(times)
        return self.curves[family, engine]


def _in_16_bits(shape: Shape) -> Shape:
    return shape.model_copy(update={"weight_bits": 16.0, "weight_only": True})


def _on_machine(variants: Mapping[str, Measured], config: DensityConfig, hardware: Hardware) -> dict[str, DrawnTime]:
    modelled = _Modelled(hardware, config.workload, config.resamples, config.seed)
    found: dict[str, DrawnTime] = {}

    def find(variant: Measured) -> DrawnTime:
        if variant.name not in found:
            root = variants.get(variant.root, variant)
            family = (root.shape, root.size)
            ratio = measured_ratio(variant, hardware, config) if variant.parent in variants else None
            point, drawn, ln_n = modelled.log_seconds(variant.shape, variant.size, family)
            own = DrawnCount(point, drawn)
            if ratio is None:
                ln_point = math.log(n_time(variant.shape, variant.size, hardware, config.workload, family))
                found[variant.name] = DrawnTime(own, own, DrawnCount(ln_point, ln_n), modelled.engines.name)
            else:
                parent = find(variants[variant.parent])
                n = parent.n.times(_in_parameters(ratio, parent, family, hardware, config))
                found[variant.name] = DrawnTime(own, parent.relative.times(ratio), n, MEASURED)
        return found[variant.name]

    for variant in variants.values():
        find(variant)
    return found


def _in_parameters(ratio: DrawnCount, parent: DrawnTime, family: Family, hardware: Hardware, config: DensityConfig) -> DrawnCount:
    """A ratio of times as a ratio of N_time: by how much the dense family must be scaled from the parent's N_time to take that long.

    The family is scaled with the profile's own factors, at the parent's point.
    """
    log_sizes = CURVE_POINTS * math.log(2) + math.log(family[1].active)
    curve = np.log([family_seconds(math.exp(size), family, hardware, config.workload) for size in log_sizes])
    start = float(np.interp(parent.n.point, log_sizes, curve))
    point = float(np.interp(start + ratio.point, curve, log_sizes)) - parent.n.point
    return DrawnCount(point, np.interp(start + ratio.draws, curve, log_sizes) - parent.n.point)


def measured_ratio(variant: Measured, hardware: Hardware, config: DensityConfig) -> DrawnCount | None:
    """ln of the measured time of a variant over its parent's; `None` if it was not measured on this machine."""
    timing = variant.timing
    if hardware.name != THIS_MACHINE or timing is None or not timing.ratio or not timing.low or not timing.high:
        return None
    # One round has no spread: the two ends are equal.
    reach = NormalDist().inv_cdf(1 - 2.0 ** -max(timing.rounds, 2))
    normal = random_stream(config.seed, f"timing/{variant.name}").normal(size=config.resamples) / reach
    below, above = math.log(timing.ratio / timing.low), math.log(timing.high / timing.ratio)
    return DrawnCount(math.log(timing.ratio), math.log(timing.ratio) + normal * np.where(normal < 0, below, above))
