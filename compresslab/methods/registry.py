"""Every method of every step, the package's own and those of installed packages, and every format.

Adding a method is one file and one line here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from compresslab.errors import BadInput
from compresslab.methods import adopt, awq, bitsandbytes, depth, distill, gptq, retrain, rtn, sparse, torchao, width
from compresslab.methods.format import FOREIGN, Format
from compresslab.methods.installed import InstalledMethods, installed_methods
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig

Methods = tuple[Method[Any], ...]

METHODS: Methods = (
    depth.DEPTH,
    width.WIDTH,
    sparse.MAGNITUDE,
    sparse.WANDA,
    sparse.SPARSEGPT,
    distill.FORWARD_KL,
    distill.REVERSE_KL,
    distill.JSD,
    distill.SKEWED_KL,
    rtn.RTN,
    gptq.GPTQ,
    awq.AWQ,
    bitsandbytes.NF4,
    bitsandbytes.FP4,
    bitsandbytes.INT8,
    torchao.INT8,
    torchao.INT4,
    retrain.FULL,
    retrain.LORA,
    retrain.QLORA,
    adopt.ADOPT,
)


@functools.cache
def installed() -> InstalledMethods:
    """The methods of installed packages. They are loaded at the first call, since they import modules that import this one."""
    return installed_methods(METHODS)


def known() -> Methods:
    """The package's own methods and those of installed packages."""
    return (*METHODS, *installed().methods)


def methods_of(kind: str) -> Methods:
    """The methods of steps of `kind`."""
    return tuple(entry for entry in known() if entry.kind == kind)


@functools.cache
def formats() -> tuple[Format, ...]:
    """Every format, those that no method writes last."""
    return (*dict.fromkeys(entry.format for entry in known() if entry.format is not None), *FOREIGN)


def method(kind: str, name: str) -> Method[Any]:
    """The method `name` of `kind`.

    Raises:
        BadInput: there is none. The recipe's schema refuses it before; settings that a program makes may name it.
    """
    found = next((entry for entry in known() if entry.kind == kind and entry.name == name), None)
    if found is None:
        raise BadInput(f"there is no {kind} method {name!r}; there are {', '.join(entry.name for entry in methods_of(kind))}")
    return found


def method_of(kind: str, config: StepConfig) -> Method[Any]:
    """The method of a step, from its settings. Raises like `method`."""
    return method(kind, config.method_name)


def configs(kind: str) -> tuple[type[StepConfig], ...]:
    """The classes of settings that a step of `kind` takes, each once."""
    return tuple(dict.fromkeys(entry.config for entry in methods_of(kind)))


def format_of(quantization: Mapping[str, Any]) -> Format | None:
    """The format that a `quantization_config` names; `None` for an unknown one."""
    return next((one for one in formats() if one.recognises(quantization)), None)
