"""Hardware profiles: peak speeds of machines, and the efficiency of engines on them."""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from compresslab.errors import BadInput
from compresslab.inputs import read_regular, reason
from compresslab.records import Record
from compresslab.suggestions import suggest

_FORM = "write flops: 9.89e14 (dense 16-bit operations a second) and bandwidth: 3.35e12 (bytes a second), see docs/bring-your-own.md"
_NUMBERS = ("flops", "flops_8bit", "bandwidth", "bandwidth_efficiency", "compute_efficiency", "layer_overhead")
LARGEST_PROFILE = 2**16  # bytes of a user's file

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

    `engine` states if the factors were fitted on another machine. The path of a `.yaml` file is read as a profile of the user.

    Raises:
        BadInput: an unknown name, or a file that is no profile.
    """
    if is_file(name):
        return _from_file(name)
    profiles = _data("hardware.json")
    if name not in profiles:
        raise BadInput(f"there is no hardware profile {name[:200]!r};{suggest(name, profiles)} (there is: {', '.join(sorted(profiles))})")
    profile = dict(profiles[name])
    fitted_on = str(profile.pop("factors"))
    fit = _data("engines.json")[fitted_on]
    engine = str(fit["engine"]) if fitted_on == name else f"borrowed from {fit['engine']} on {fitted_on}, not measured"
    factors = {key: fit[key] for key in ("bandwidth_efficiency", "compute_efficiency", "layer_overhead")}
    return Hardware.model_validate({"name": name, "engine": engine, "borrowed": fitted_on != name, **profile, **factors})


def is_file(name: str) -> bool:
    """Whether a profile's name is the path of a user's file."""
    return name.endswith((".yaml", ".yml"))


def _from_file(name: str) -> Hardware:
    """A user's profile: the fields of `Hardware`, of which `flops` and `bandwidth` must be given. Its name is the file's."""
    try:
        content = yaml.safe_load(read_regular(Path(name).expanduser(), LARGEST_PROFILE))
    except (OSError, ValueError) as error:
        raise BadInput(f"the hardware profile {name} cannot be read ({reason(error)}); check the path") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{name} is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{name} is no hardware profile; {_FORM}")
    # YAML reads 1e12 as a text.
    numbers = {key: _number(value) if key in _NUMBERS else value for key, value in content.items()}
    try:
        return Hardware.model_validate({"name": Path(name).stem, "source": f"the file {Path(name).name}", **numbers})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInput(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}; {_FORM}") from error


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@functools.cache
def _data(name: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads((resources.files("compresslab") / "data" / name).read_text("utf-8"))
    return content
