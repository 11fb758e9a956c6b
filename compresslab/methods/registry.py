"""Every method of every step, the package's own and those of installed packages, and every format.

Adding a method is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from compresslab.methods import adopt, awq, bitsandbytes, depth, distill, gptq, retrain, rtn, sparse, torchao, width
from compresslab.methods.format import FOREIGN, Format
from compresslab.methods.installed import installed_methods
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
INSTALLED, BROKEN = installed_methods(METHODS)
KNOWN: Methods = (*METHODS, *INSTALLED)


def formats_of(methods: Iterable[Method[Any]]) -> tuple[Format, ...]:
    """The formats that the given methods write, each once."""
    return tuple(dict.fromkeys(entry.format for entry in methods if entry.format is not None))


FORMATS = (*formats_of(KNOWN), *FOREIGN)


def method(kind: str, name: str) -> Method[Any]:
    """The method `name` of `kind`, which exists: the recipe's schema refuses unknown ones."""
    return next(entry for entry in KNOWN if entry.kind == kind and entry.name == name)


def method_of(kind: str, config: StepConfig) -> Method[Any]:
    """The method of a step, from its settings."""
    return method(kind, config.method_name)


def configs(kind: str) -> tuple[type[StepConfig], ...]:
    """The classes of settings that a step of `kind` takes, each once."""
    return tuple(dict.fromkeys(entry.config for entry in KNOWN if entry.kind == kind))


def format_of(quantization: Mapping[str, Any]) -> Format | None:
    """The format that a `quantization_config` names; `None` for an unknown one."""
    return next((known for known in FORMATS if known.recognises(quantization)), None)
