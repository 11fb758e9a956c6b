"""Hardware profiles: peak speeds of machines, and the efficiency of engines on them."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from pydantic import Field

from compresslab.errors import BadInput
from compresslab.records import Record
from compresslab.suggestions import suggest

THIS_MACHINE = "this-machine"
"""The name of the machine that runs, whose profile is measured."""


class Hardware(Record):
    """The roofline of a machine, with the factors of an engine. The default factors are those of the roofline itself.

    Attributes:
        flops: peak dense bf16 operations per second. flops_8bit: the same at 8 bits; `None` if it is not higher.
        bandwidth: bytes per second from the memory that holds the weights.
        source: of the figures.
        engine: the engine of the factors below, and whether it was measured on this machine.
        bandwidth_efficiency, compute_efficiency: the shares of `bandwidth` and of the peak that the engine reaches.
        layer_overhead: seconds per decoder layer and forward pass in addition to reading and multiplying.
        borrowed: the factors were fitted on another machine.
    """

    name: str
    flops: float = Field(gt=0, allow_inf_nan=False)
    flops_8bit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    bandwidth: float = Field(gt=0, allow_inf_nan=False)
    source: str
    engine: str = "none: the roofline itself"
    bandwidth_efficiency: float = Field(default=1.0, gt=0, le=1)
    compute_efficiency: float = Field(default=1.0, gt=0, le=1)
    layer_overhead: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    borrowed: bool = False

    @property
    def has_own_factors(self) -> bool:
        """Whether the factors are those of an engine on this machine: neither borrowed nor the bare roofline's."""
        return not self.borrowed and (self.bandwidth_efficiency, self.compute_efficiency, self.layer_overhead) != (1.0, 1.0, 0.0)


def hardware_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(_data("hardware.json"))


def load_hardware(name: str) -> Hardware:
    """A profile that ships with the package, with the factors of the engine that its entry names.

    `engine` states if the factors were fitted on another machine. Raises BadInput for an unknown name.
    """
    profiles = _data("hardware.json")
    if name not in profiles:
        raise BadInput(f"there is no hardware profile {name[:200]!r};{suggest(name, profiles)} (there is: {', '.join(sorted(profiles))})")
    profile = dict(profiles[name])
    fitted_on = str(profile.pop("factors"))
    fit = _data("engines.json")[fitted_on]
    engine = str(fit["engine"]) if fitted_on == name else f"borrowed from {fit['engine']} on {fitted_on}, not measured"
    factors = {key: fit[key] for key in ("bandwidth_efficiency", "compute_efficiency", "layer_overhead")}
    return Hardware.model_validate({"name": name, "engine": engine, "borrowed": fitted_on != name, **profile, **factors})


@functools.cache
def _data(name: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads((resources.files("compresslab") / "data" / name).read_text("utf-8"))
    return content
