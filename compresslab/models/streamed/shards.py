"""Writes safetensors files from tensors that come one after the other, byte for byte as the library writes them from a whole model."""

from __future__ import annotations

import json
import struct
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compresslab.models.streamed.tensor_files import DTYPES

# Of the format's names of dtypes.
ORDER = {name: place for place, name in enumerate(DTYPES.values())}
INDEX = "model.safetensors.index.json"
PART = 16 * 2**20


class _Stored(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int


class ShardWriter:
    """Writes a model's tensors into `folder`, a file as soon as it is full.

    The tensors of a file are sorted, so they are collected in a temporary file first. It takes the size of a file on the disk in addition.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, it lives as long as the writer
        weakref.finalize(self, self._spool.close)
        self._waiting: list[_Stored] = []
        self._size = self._total = 0
        self._files: list[tuple[Path, list[str]]] = []

    def add(self, name: str, shape: Iterable[int], parts: Iterable[Tensor]) -> None:
        """Add a tensor that comes in parts of consecutive rows."""
        start, dtype = self._size, ""
        for part in parts:
            dtype = DTYPES[part.dtype]
            self._spool.write(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            self._size += part.nbytes
        stored = _Stored(name, dtype, tuple(shape), start, self._size - start)
        # The rule of huggingface_hub, which transformers follows: a file ends before the tensor that would make it too large.
        if self._waiting and self._size > self._limit:
            self._close(stored)
        else:
            self._waiting.append(stored)

    def finish(self, parameters: int) -> None:
        """Write what waits, and the index if there are several files. `parameters` is the model's number of parameters."""
        self._write()
        self._spool.close()
        names = [f"model-{number:05}-of-{len(self._files):05}.safetensors" for number in range(1, len(self._files) + 1)]
        if len(self._files) == 1:
            names = ["model.safetensors"]
        for (path, _), name in zip(self._files, names, strict=True):
            path.rename(self._folder / name)
        if len(names) > 1:
            weight_map = {tensor: name for (_, tensors), name in zip(self._files, names, strict=True) for tensor in tensors}
            index = {"metadata": {"total_parameters": parameters, "total_size": self._total}, "weight_map": weight_map}
            (self._folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")

    def _close(self, following: _Stored) -> None:
        """Write the tensors that wait, without the one that follows, which is moved to the start of the temporary file."""
        self._write()
        self._spool.seek(0)
        _copy(self._spool, following.start, following.bytes, self._spool)
        self._spool.truncate(following.bytes)
        self._spool.seek(following.bytes)
        self._waiting, self._size = [following._replace(start=0)], following.bytes

    def _write(self) -> None:
        ordered = sorted(self._waiting, key=lambda stored: (-ORDER[stored.dtype], stored.name))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for stored in ordered:
            header[stored.name] = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": [end, end := end + stored.bytes]}
        encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        encoded = encoded.ljust(-(-len(encoded) // 8) * 8)
        path = self._folder / f"part-{len(self._files)}.safetensors"
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(encoded)) + encoded)
            for stored in ordered:
                _copy(self._spool, stored.start, stored.bytes, file)
        self._files.append((path, [stored.name for stored in self._waiting]))
        self._total += end
        self._waiting = []


def _copy(source: Any, start: int, count: int, target: Any) -> None:
    """Copy bytes to where `target` stands, which may be the same file at a place before them."""
    if source is not target:
        source.seek(start)
        for left in range(count, 0, -PART):
            target.write(source.read(min(PART, left)))
        return
    for done in range(0, count, PART):
        source.seek(start + done)
        part = source.read(min(PART, count - done))
        source.seek(done)
        source.write(part)
