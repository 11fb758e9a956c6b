"""A model as its files hold it: the names, sizes and values of its tensors, read in parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.inputs import safetensors_header
from compresslab.models.streamed.tensor_files import TensorFile
from compresslab.recipe.stored_weights import WIDE, Location, loaded_files, location_of

# Bytes of a tensor that are in memory at a time.
PART_BYTES = 32 * 2**20


class Stored(NamedTuple):
    """A tensor in a file: its whole name, the format's name of its dtype, its shape and its bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def wide(self) -> bool:
        """Whether it is a floating-point tensor of 16 bits or more."""
        return self.dtype in WIDE


class StoredModel:
    """The safetensors files of a folder that a loader reads.

    Attributes:
        tensors: by their location.
    """

    def __init__(self, folder: Path, inside: str) -> None:
        """Read the headers.

        Args:
            inside: what stands before the number of a decoder layer in memory.

        Raises:
            OSError, ValueError: a file is missing or damaged.
        """
        self.tensors: dict[Location, Stored] = {}
        self._modules: dict[int | None, dict[str, Stored]] = {}
        self._open: dict[Path, TensorFile | None] = {}
        for file in loaded_files(folder):
            for name, entry in safetensors_header(file).items():
                start, end = entry["data_offsets"]
                location = location_of(name, inside)
                stored = Stored(file, name, entry["dtype"], tuple(entry["shape"]), end - start)
                self.tensors[location] = stored
                self._modules.setdefault(location.layer, {})[location.name] = stored

    @property
    def layers(self) -> list[int]:
        """The numbers of its decoder layers."""
        return sorted(layer for layer in self._modules if layer is not None)

    @property
    def elements(self) -> int:
        """Of all tensors."""
        return sum(stored.elements for stored in self.tensors.values())

    def of_module(self, module: Location) -> dict[str, Stored]:
        """The tensors of a module, by their names after its own."""
        start = f"{module.name}."
        found = self._modules.get(module.layer, {})
        return {name.removeprefix(start): stored for name, stored in found.items() if name.startswith(start)}

    def of_layer(self, layer: int) -> dict[str, Stored]:
        """The tensors of a decoder layer, by their names in it."""
        return self._modules.get(layer, {})

    def readable(self, stored: Stored) -> bool:
        """Whether its values can be read: torch computes with the dtypes of its file."""
        return self._file(stored) is not None

    def parts(self, stored: Stored) -> Iterator[Tensor]:
        """The values of a readable tensor, in parts of consecutive rows."""
        file = self._file(stored)
        assert file is not None
        if len(stored.shape) == 0:
            yield file.tensor(stored.name)
            return
        rows = max(1, PART_BYTES * stored.shape[0] // max(1, stored.bytes))
        for start in range(0, stored.shape[0], rows):
            yield file.range(stored.name, start, min(start + rows, stored.shape[0]))

    def tensor(self, stored: Stored) -> Tensor:
        """A whole readable tensor."""
        file = self._file(stored)
        assert file is not None
        return file.tensor(stored.name)

    def rows(self, stored: Stored, count: int) -> Tensor:
        """The first rows of a readable tensor."""
        file = self._file(stored)
        assert file is not None
        return file.range(stored.name, 0, count)

    def constant(self, stored: Stored) -> float | None:
        """The value of a tensor all of whose elements are equal; `None` if they are not."""
        value: float | None = None
        for part in self.parts(stored):
            low, high = (float(found) for found in part.aminmax()) if part.numel() else (0.0, 0.0)
            if low != high or (value is not None and value != low):
                return None
            value = low
        return value

    def equal(self, stored: Stored, other: StoredModel, theirs: Stored) -> bool:
        """Whether a tensor is another model's, bit for bit."""
        if (stored.dtype, stored.shape) != (theirs.dtype, theirs.shape):
            return False
        return all(same_bits(one, two) for one, two in zip(self.parts(stored), other.parts(theirs), strict=True))

    def _file(self, stored: Stored) -> TensorFile | None:
        if stored.file not in self._open:
            try:
                self._open[stored.file] = TensorFile(stored.file)
            except ValueError:  # a dtype of another package's format
                self._open[stored.file] = None
        return self._open[stored.file]


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors of one dtype and shape are equal bit for bit."""
    return torch.equal(one.reshape(-1).view(torch.uint8), two.reshape(-1).view(torch.uint8))
