"""Compares the embeddings of two stored models: quantizing leaves them as they are, and training a whole model does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compresslab.density.references.laws import Array
from compresslab.errors import BadInput
from compresslab.inputs import open_regular, safetensors_header
from compresslab.recipe.stored_weights import loaded_files
from compresslab.records import Shape

ROWS = 4096
"""Rows that are compared. In most tokenizers the first ones are of frequent tokens, which any training moves."""

ROUNDING = 2.0**-7, 2.0**-24
"""The relative and the absolute difference that 16 bits explain: twice the rounding of bfloat16, and the step of float16 at 0."""

FLOATS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class _Place(NamedTuple):
    file: Path
    start: int
    dtype: str


def same_embeddings(one: Path, other: Path, shape: Shape) -> bool | None:
    """Whether the embeddings and output heads that both folders hold in floating point are equal but for rounding to 16 bits.

    `None` if they have none in common, or cannot be read.

    Args:
        one, other: model folders. shape: the dimensions of both models.
    """
    rows = min(ROWS, shape.vocabulary)
    try:
        first, second = dict(_embeddings(one, shape)), dict(_embeddings(other, shape))
        pairs = [(_read(first[name], rows, shape.hidden), _read(second[name], rows, shape.hidden)) for name in first if name in second]
    except (OSError, ValueError, KeyError, TypeError, BadInput):
        return None  # a folder whose files are gone or damaged has no say here; whatever needs the model reports it
    relative, absolute = ROUNDING
    return all(bool(np.all(np.abs(a - b) <= relative * np.maximum(np.abs(a), np.abs(b)) + absolute)) for a, b in pairs) if pairs else None


def _embeddings(folder: Path, shape: Shape) -> Iterator[tuple[str, _Place]]:
    """The tensors with a row for each token."""
    for file in loaded_files(folder):
        header = safetensors_header(file)
        before = file.stat().st_size - max((entry["data_offsets"][1] for entry in header.values()), default=0)
        for name, entry in header.items():
            if list(entry["shape"]) == [shape.vocabulary, shape.hidden] and entry["dtype"] in FLOATS:
                yield name, _Place(file, before + entry["data_offsets"][0], entry["dtype"])


def _read(place: _Place, rows: int, width: int) -> Array:
    dtype = FLOATS[place.dtype]
    with open_regular(place.file) as file:
        file.seek(place.start)
        values = np.frombuffer(file.read(rows * width * dtype.itemsize), dtype=dtype)
    if len(values) != rows * width:
        raise ValueError(f"{place.file} is shorter than it was")
    # A bfloat16 is the upper half of a float32.
    plain = (values.astype(np.uint32) << 16).view(np.float32) if place.dtype == "BF16" else values
    return np.asarray(plain, dtype=np.float64)
