"""How far modelled times may be off: draws of an engine and of the errors that remain with its factors.

`data/engine_errors.json` holds every engine whose speeds are published: the factors fitted to its bf16 rows, and the errors of its other
rows with these factors (`density.time.engine_factors` writes it). What is drawn depends on the hardware profile:

- Its factors were fitted on this engine and machine: the factors are kept, and the errors are those of this engine.
- It has no fitted factors, or borrowed ones: nobody knows which engine will run. Each draw takes one of the measured engines, with its
  factors and its errors. An engine that was never measured differs from all of these, so a draw may also take the error of another
  precision class (see `EngineDraws.precision_errors`).
- It has factors of its own whose errors nobody measured: the factors are kept, and the errors are those of an unknown engine.

All rows have batch 1; nothing is known about the errors at other batches.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from compresslab.catalog.hardware import Hardware
from compresslab.density.draws import random_stream
from compresslab.density.references.laws import Array
from compresslab.records import Record, Shape, Size

FACTORS = ("bandwidth_efficiency", "compute_efficiency", "layer_overhead")

LOWEST_8_BIT = 6.5
"""Layers with more stored bits a weight count as 8-bit, with fewer as 4-bit."""

MIN_SIZE_ERRORS = 5
"""An engine with fewer pairs of sizes takes the errors of all engines."""

OTHER_CLASS_WEIGHT = 1.0
"""Weight of all precision classes together when the error of an unknown engine is drawn; each engine measured in the class has 1."""


class MeasuredEngine(Record):
    """An engine on a machine, with the factors fitted to its bf16 rows and the errors that remain: ln of measured over modelled time.

    Attributes:
        hardware: the name of the machine's profile.
        quantized: by `precision_class`, errors of the time relative to the same model in bf16.
        mixture: errors of mixtures in bf16. level: errors of dense models in bf16.
        size: for two dense bf16 models, the measured log ratio of their times over the modelled one, minus 1.
    """

    engine: str
    hardware: str
    bandwidth_efficiency: float
    compute_efficiency: float
    layer_overhead: float
    quantized: dict[str, list[float]]
    mixture: list[float]
    level: list[float]
    size: list[float]

    @property
    def software(self) -> str:
        """The engine's name without its version."""
        return self.engine.split()[0]

    def profile(self, hardware: Hardware) -> Hardware:
        """A machine with this engine's factors."""
        return hardware.model_copy(update={"engine": self.engine, **{name: getattr(self, name) for name in FACTORS}})

    def cells(self) -> dict[str, list[float]]:
        """The errors by class, those of mixtures in bf16 as the class "mixture"."""
        return self.quantized | ({"mixture": self.mixture} if self.mixture else {})


@functools.cache
def measured_engines() -> tuple[MeasuredEngine, ...]:
    """Every engine with published speeds."""
    content = json.loads((resources.files("compresslab") / "data" / "engine_errors.json").read_text("utf-8"))
    return tuple(MeasuredEngine.model_validate(entry) for entry in content)


def precision_class(shape: Shape, size: Size) -> str:
    """ "16 bits", "4-bit weights", "8-bit weights" or "8-bit arithmetic", with ", mixture" for a mixture of experts.

    The class of weight-only formats is that of the layers, with an output head of 16 bits, as all tables have it. A format that also
    stores the head at 8 bits can be taken for a 4-bit one where the head is much of a small model.
    """
    if shape.weight_bits >= 16:
        name = "16 bits"
    elif not shape.weight_only:
        name = "8-bit arithmetic"
    else:
        head = shape.vocabulary * shape.hidden
        layers = max(size.counted - head, 1)
        name = "8-bit weights" if (shape.weight_bits * size.counted - 16 * head) / layers > LOWEST_8_BIT else "4-bit weights"
    return f"{name}, mixture" if shape.experts else name


@dataclass(frozen=True, eq=False)
class EngineDraws:
    """The draws of an engine for one hardware profile. The errors do not depend on the variant, so they cancel between equal ones.

    Attributes:
        profiles: the machine with the factors of each engine that can be drawn. which: (draws,) the profile of each draw.
        engines: the engines whose errors are drawn, in the order of `profiles`. known: the one engine of the profile is measured.
    """

    hardware: Hardware
    profiles: list[Hardware]
    engines: Sequence[MeasuredEngine]
    which: NDArray[np.int64]
    known: bool
    seed: int

    @property
    def name(self) -> str:
        """The engine for which the draws hold, in words."""
        return self.hardware.engine if self.known or self.hardware.has_own_factors else "an unknown engine"

    def precision_errors(self, name: str) -> Array:
        """(draws,) ln of measured over modelled time of a class, relative to the same model in bf16 (for "mixture", to dense ones).

        A known engine that was measured in the class has its own errors. Else the errors are those of any engine measured in the class,
        and with a chance of 1 / (1 + number of these engines) those of any class, as in a Polya urn. They are drawn independently of
        the factors, because an unknown engine is none of the measured ones, and spread by `_spacing`, because its errors lie
        beside theirs.
        """
        draws = len(self.which)
        if name == "16 bits":
            return np.zeros(draws)
        rng = random_stream(self.seed, f"engine/{self.hardware.name}/{name}")
        cells = [(cell, np.array(errors)) for engine in self.engines for cell, errors in engine.cells().items()]
        own = [position for position, (cell, _) in enumerate(cells) if cell == name]
        if not own and name.endswith(", mixture"):
            return self.precision_errors(name.removesuffix(", mixture"))
        chosen = rng.integers(len(cells), size=draws)
        if own:
            of_class = np.array(own)[rng.integers(len(own), size=draws)]
            other = 0.0 if self.known else OTHER_CLASS_WEIGHT / (OTHER_CLASS_WEIGHT + len(own))
            chosen = np.where(rng.random(draws) < other, chosen, of_class)
        rows, spread = rng.random(draws), rng.normal(size=draws)
        errors = np.empty(draws)
        for position in np.unique(chosen):
            values = cells[position][1]
            errors[chosen == position] = values[(rows[chosen == position] * len(values)).astype(np.int64)]
        return errors if self.known and own else errors + _spacing(self.engines) * spread

    def size_errors(self) -> Array:
        """(draws,) relative error of the logarithm of the time ratio of two models in bf16."""
        return self._by_engine("size", MIN_SIZE_ERRORS)

    def level_errors(self) -> Array:
        """(draws,) ln of measured over modelled time of a dense bf16 model; the same for all variants, so it cancels in ratios."""
        return self._by_engine("level", MIN_SIZE_ERRORS)

    def _by_engine(self, kind: str, minimum: int) -> Array:
        rng = random_stream(self.seed, f"engine/{self.hardware.name}/{kind}")
        pooled = np.array([error for engine in measured_engines() for error in getattr(engine, kind)])
        rows, errors = rng.random(len(self.which)), np.empty(len(self.which))
        for i, engine in enumerate(self.engines):
            values = np.array(getattr(engine, kind))
            values = pooled if len(values) < minimum else values
            errors[self.which == i] = values[(rows[self.which == i] * len(values)).astype(np.int64)]
        return errors


def _spacing(engines: Sequence[MeasuredEngine]) -> float:
    """Standard deviation between the engines of a class (of their median errors, by the median absolute deviation over all classes).

    0.1 without a class that two engines share.
    """
    medians: dict[str, list[float]] = {}
    for engine in engines:
        for name, errors in engine.cells().items():
            medians.setdefault(name, []).append(float(np.median(errors)))
    deviations = [abs(median - np.median(group)) for group in medians.values() if len(group) > 1 for median in group]
    return float(1.4826 * np.median(deviations)) if deviations else 0.1


def draw_engines(hardware: Hardware, draws: int, seed: int, engines: Sequence[MeasuredEngine] | None = None) -> EngineDraws:
    """The engine of each draw for a hardware profile.

    Args:
        engines: those that were measured; default: all that ship. An engine that is tested is left out.
    """
    engines = measured_engines() if engines is None else engines
    own = [engine for engine in engines if (engine.engine, engine.hardware) == (hardware.engine, hardware.name)]
    if own:
        return EngineDraws(hardware, [hardware], own, np.zeros(draws, dtype=np.int64), True, seed)
    which = random_stream(seed, f"engine/{hardware.name}").integers(len(engines), size=draws)
    profiles = [hardware if hardware.has_own_factors else engine.profile(hardware) for engine in engines]
    return EngineDraws(hardware, profiles, engines, which, False, seed)
