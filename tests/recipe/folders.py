"""Folders of models for tests: weights, shards, further files, and their identity."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from compresslab.plan import keys
from compresslab.recipe.source import Source


def weights(path: Path, content: bytes = b"1234") -> Path:
    """A safetensors file with one tensor of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    return path


def shards(folder: Path, *names: str) -> Path:
    """Replaces the weights by an index of shards."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}))
    return index


def identity(folder: Path) -> dict[str, str]:
    return keys.model_identity(Source("folder", str(folder)))


def put(name: str, content: str = "x") -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return (folder / name).write_text(content)

    return write


def pipe(path: Path) -> None:
    """A named pipe."""
    os.mkfifo(path)


def socket_at(path: Path) -> None:
    """A socket with a name."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
