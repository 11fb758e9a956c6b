"""The hidden states of calibration text: in memory while they are few, else in a file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch import Tensor

from compresslab.methods.layerwise import HIDDEN_BYTES


class HiddenStates(Sequence[Tensor]):
    """One tensor (sequences, length, hidden) per batch, each read and replaced by its number.

    A batch is replaced in its place, so the file is as large as the hidden states before one layer.
    """

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._tensors: list[Tensor] = []
        self._file = tempfile.TemporaryFile(prefix="compresslab-hidden-")  # noqa: SIM115, it lives as long as the states
        weakref.finalize(self, self._file.close)
        self._spilled: dict[int, tuple[int, torch.dtype, tuple[int, ...], torch.device]] = {}
        held = end = 0
        for number, batch in enumerate(batches):
            held += batch.nbytes
            if held <= HIDDEN_BYTES:
                self._tensors.append(batch)
                continue
            self._tensors.append(batch.new_empty(0))
            self._spilled[number] = (end, batch.dtype, tuple(batch.shape), batch.device)
            self._write(number, batch)
            end += batch.nbytes

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]  # slices are not taken
        """Batch `number`."""
        if number not in self._spilled:
            return self._tensors[number]
        offset, dtype, shape, device = self._spilled[number]
        self._file.seek(offset)
        content = torch.empty(prod(shape) * dtype.itemsize, dtype=torch.uint8)
        self._file.readinto(content.numpy())  # type: ignore[arg-type]  # numpy 2 says that it is a buffer
        return content.view(dtype).view(shape).to(device)

    def replace(self, number: int, batch: Tensor) -> None:
        """Replace batch `number` by one of the same shape and dtype."""
        if number in self._spilled:
            self._write(number, batch)
        else:
            self._tensors[number] = batch

    def _write(self, number: int, batch: Tensor) -> None:
        self._file.seek(self._spilled[number][0])
        self._file.write(batch.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
