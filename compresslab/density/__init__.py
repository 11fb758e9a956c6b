"""Capability density: the reference curve, effective parameters, inference time, and verdicts on child against parent.

Works on records alone, without torch. A study calls `assess`; `compare` compares one child with one parent.
`Reference.load("olmo-ladder").effective_params(task="arc_easy", bpb=0.93)` reads a single value off the reference.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compresslab.catalog.hardware import Hardware, hardware_names, load_hardware
    from compresslab.density.comparison import GROWTH_PER_DAY, assess, compare, density_days
    from compresslab.density.draws import Measured
    from compresslab.density.references.budget import Budget
    from compresslab.density.references.reference import Reference, TaskFit
    from compresslab.density.time.inference_time import n_time, seconds

__all__ = [
    "GROWTH_PER_DAY",
    "Budget",
    "Hardware",
    "Measured",
    "Reference",
    "TaskFit",
    "assess",
    "compare",
    "density_days",
    "hardware_names",
    "load_hardware",
    "n_time",
    "seconds",
]

_MODULES = {
    "catalog.hardware": ("Hardware", "hardware_names", "load_hardware"),
    "density.references.budget": ("Budget",),
    "density.comparison": ("GROWTH_PER_DAY", "assess", "compare", "density_days"),
    "density.draws": ("Measured",),
    "density.time.inference_time": ("n_time", "seconds"),
    "density.references.reference": ("Reference", "TaskFit"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, because planning needs the hardware profiles without waiting for numpy."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"compresslab.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
