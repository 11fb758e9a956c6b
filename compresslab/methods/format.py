"""Checkpoint formats: how packed weights are stored, for the plan, the models and the steps.

Code that needs torch is in the format's reader, a module that is imported by name where weights are read (`models.formats.reader`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from compresslab.methods.dimensions import Dimensions

# The `quantization_config` of a folder's config.json.
Quantization = Mapping[str, Any]
# Numbers of weights per scale that kernels support.
USUAL_GROUPS = (16, 32, 64, 128, 256)
# Size of the words, in bits, into which GPTQ and AWQ checkpoints pack codes.
WORD_BITS = 32
# The reader of formats that only their own library reads.
NO_READER = "compresslab.models.formats.reader"
# Parts of a config.json that may describe the text model of a larger one, as in transformers.
TEXT_CONFIGS = ("decoder", "generator", "text_config")


class Objection(NamedTuple):
    """A reason to refuse a step. `field` is the setting that must change; it is empty if the step itself is refused."""

    field: str
    reason: str


class Packing(NamedTuple):
    """How a step packs weights: bits per weight, and the number of neighbours in a row that share a scale, if that is a setting."""

    bits: int
    group_size: int | None = None


def _own_bits(packing: Packing) -> float:
    return packing.bits


def _never(_: Quantization) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        name: the value of `quant_method` in config.json.
        reader: the module whose `reader()` returns the `models.formats.reader.Reader` that unpacks, counts and digests its tensors.
        files: names of files that identify a folder of this format if its config.json does not.
        bits: bits of a packed weight in the files, its share of scales and zero points included.
        kernel: the kernel that multiplies by the weights when transformers loads a folder, named for a table.
        rounds_inputs: whether the kernel also rounds activations. Such a model is scored packed, and its products run at 8 bits.
        whole_groups: the group size must divide each layer's inputs, since no group spans two rows.
        multiple: inputs and outputs of each layer must be multiples of this number.
        flags: settings of which one is true in configurations of this format that were written before `quant_method` existed.
    """

    name: str
    reader: str = NO_READER
    files: tuple[str, ...] = ()
    bits: Callable[[Packing], float] = _own_bits
    kernel: Callable[[Quantization], str] = lambda quantization: str(quantization.get("quant_method"))
    rounds_inputs: Callable[[Quantization], bool] = _never
    whole_groups: bool = False
    multiple: int = 1
    flags: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether its weights can be unpacked and counted here."""
        return self.reader != NO_READER

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose code decides how a folder of this format is unpacked, counted and scored."""
        functions: tuple[Callable[..., Any], ...] = (self.bits, self.kernel, self.rounds_inputs)
        return tuple(dict.fromkeys([self.reader, *(str(_unwrapped(function).__module__) for function in functions)]))

    def recognises(self, quantization: Quantization) -> bool:
        """Whether a folder's `quantization_config` names this format."""
        name = quantization.get("quant_method")
        return any(quantization.get(flag) for flag in self.flags) if name is None else bool(name == self.name)

    def objections(self, packing: Packing, model: Dimensions) -> list[Objection]:
        """Reasons why a model's layers cannot be stored in this format; empty if they can."""
        size = packing.group_size
        indivisible = [f"the {name} {width}" for name, width in model.input_widths.items() if size and self.whole_groups and width % size]
        if indivisible:
            fitting = fitting_groups(set(model.input_widths.values()))
            usual = f"these do: {', '.join(map(str, fitting))}" if fitting else "none of the usual sizes does; prune to a rounder width"
            return [Objection("group_size", f"{size} does not divide {' and '.join(indivisible)}; {usual}")]
        if indivisible := [f"the {name} {size}" for name, size in model.sizes.items() if size % self.multiple]:
            return [
                Objection(
                    "", f"the checkpoint format needs multiples of {self.multiple}, and {' and '.join(indivisible)} is none; take rtn"
                )
            ]
        return []


def stated_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """The `quantization_config` in the content of a config.json, or in that of its text model; `None` for plain weights."""
    parts = (config, *map(config.get, TEXT_CONFIGS))
    found = (part.get("quantization_config") for part in parts if isinstance(part, Mapping))
    return next((quantization for quantization in found if quantization and isinstance(quantization, Mapping)), None)


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return _unwrapped(function.func) if isinstance(function, functools.partial) else function


def fitting_groups(widths: set[int]) -> list[int]:
    """The usual group sizes that divide all widths."""
    return [size for size in USUAL_GROUPS if all(width % size == 0 for width in widths)]


# Formats that transformers keeps packed in memory and that no method here writes.
FOREIGN = tuple(map(Format, ("auto-round", "hqq", "eetq", "aqlm", "quanto")))
