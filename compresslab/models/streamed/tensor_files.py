"""Reads tensors, or some of their rows, from safetensors files into memory of their own.

The library maps files, whose pages count as memory of the process, and its reader without a map reads a whole tensor for one row.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.inputs import safetensors_header

# The format's names of dtypes, in the order in which the library sorts the tensors of a file, the last ones first.
DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
BY_NAME = {name: dtype for dtype, name in DTYPES.items()}


class _Stored(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


class TensorFile:
    """A safetensors file that is open for reading.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is no safetensors file, is cut off, or has a dtype that torch does not compute with.
    """

    def __init__(self, path: Path) -> None:
        header = safetensors_header(path)
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        data = os.fstat(self._file).st_size - max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if unknown := {entry["dtype"] for entry in header.values()} - BY_NAME.keys():
            raise ValueError(f"its dtype {sorted(unknown)[0]} is not read here")
        self._tensors = {
            name: _Stored(BY_NAME[entry["dtype"]], tuple(entry["shape"]), data + entry["data_offsets"][0]) for name, entry in header.items()
        }

    @property
    def names(self) -> list[str]:
        """The names of its tensors."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._tensors[name].shape

    def tensor(self, name: str) -> Tensor:
        """A whole tensor."""
        dtype, shape, start = self._tensors[name]
        content = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
        self._fill(content, start)
        return content.view(dtype).view(shape)

    def range(self, name: str, start: int, end: int) -> Tensor:
        """The rows of a tensor from `start` to before `end`."""
        dtype, shape, first = self._tensors[name]
        row = math.prod(shape[1:]) * dtype.itemsize
        content = torch.empty((end - start) * row, dtype=torch.uint8)
        self._fill(content, first + start * row)
        return content.view(dtype).view(end - start, *shape[1:])

    def rows(self, name: str, numbers: Sequence[int]) -> Tensor:
        """The rows of a tensor with the given numbers."""
        dtype, shape, first = self._tensors[name]
        row = math.prod(shape[1:]) * dtype.itemsize
        content = torch.empty((len(numbers), row), dtype=torch.uint8)
        for place, number in enumerate(numbers):
            self._fill(content[place], first + number * row)
        return content.view(dtype).view(len(numbers), *shape[1:])

    def _fill(self, content: Tensor, start: int) -> None:
        view = memoryview(content.numpy())  # type: ignore[arg-type]  # an array of numpy is a buffer
        done = 0
        while done < len(view):
            # One call reads 2 GB at most.
            count = os.preadv(self._file, [view[done:]], start + done)
            if not count:
                raise OSError(None, "the file is shorter than it was", str(self.path))
            done += count
