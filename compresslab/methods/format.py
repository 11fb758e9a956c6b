"""A checkpoint format: everything that the plan, the models and the steps ask of how packed weights are stored.

What needs torch is in the format's reader, a module that is imported by name where weights are read (`models.formats.reader`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from compresslab.methods.dimensions import Dimensions

# The `quantization_config` of a folder's config.json.
Quantization = Mapping[str, Any]
# Weights that share a scale, as kernels know them.
USUAL_GROUPS = (16, 32, 64, 128, 256)
# Bits of the words that GPTQ and AWQ checkpoints pack codes into.
WORD = 32
# The module of a format that is recognised here and read by its own library alone.
NO_READER = "compresslab.models.formats.reader"


class Objection(NamedTuple):
    """Why a step is refused; `field` is the setting to blame, or empty if it is the step itself."""

    field: str
    reason: str


class Packing(NamedTuple):
    """How a step's settings pack weights: `bits` each, and of `group_size` neighbours in a row that share a scale, if that is a setting."""

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
        name: what `quant_method` in config.json calls it.
        reader: the module whose `reader()` gives what unpacks, counts and digests its tensors (`models.formats.reader.Reader`).
        files: names of files by which a folder of this format is known where its config.json says nothing.
        bits: of a packed weight in the files, its share of scales and zero points included.
        kernel: what multiplies by the weights when plain transformers loads a folder, in words for a table.
        rounds_inputs: whether the kernel rounds activations, too: then its products are the ones to score, and they run at 8 bits.
        whole_groups: a group of weights ends with its row, so that the group size must divide each layer's inputs.
        multiple: inputs and outputs of each layer must be multiples of it.
    """

    name: str
    reader: str = NO_READER
    files: tuple[str, ...] = ()
    bits: Callable[[Packing], float] = _own_bits
    kernel: Callable[[Quantization], str] = lambda quantization: str(quantization.get("quant_method"))
    rounds_inputs: Callable[[Quantization], bool] = _never
    whole_groups: bool = False
    multiple: int = 1

    def recognises(self, quantization: Quantization) -> bool:
        """Whether a folder's `quantization_config` is one of this format."""
        return bool(quantization.get("quant_method") == self.name)

    def objections(self, packing: Packing, model: Dimensions) -> list[Objection]:
        """Why a model's layers cannot be stored so; empty if they can."""
        size = packing.group_size
        bad = [f"the {name} {width}" for name, width in model.input_widths.items() if size and self.whole_groups and width % size]
        if bad:
            fitting = fitting_groups(set(model.input_widths.values()))
            usual = f"these do: {', '.join(map(str, fitting))}" if fitting else "none of the usual sizes does; prune to a rounder width"
            return [Objection("group_size", f"{size} does not divide {' and '.join(bad)}; {usual}")]
        if odd := [f"the {name} {size}" for name, size in model.sizes.items() if size % self.multiple]:
            return [Objection("", f"the checkpoint format needs multiples of {self.multiple}, and {' and '.join(odd)} is none; take rtn")]
        return []


def fitting_groups(widths: set[int]) -> list[int]:
    """The usual group sizes that divide all of these widths."""
    return [size for size in USUAL_GROUPS if all(width % size == 0 for width in widths)]


# Formats that transformers keeps packed in memory and that no method here writes; any other one is unpacked as it is loaded.
FOREIGN = tuple(map(Format, ("auto-round", "hqq", "eetq", "aqlm", "quanto")))
