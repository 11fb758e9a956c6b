"""Stores token ids of a task's strings on disk, so that variants of a study with the same tokenizer tokenize each task once."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from transformers import PreTrainedTokenizerBase

from compresslab.evaluation.scores import Pair
from compresslab.files import atomic_write

Ids: TypeAlias = "array[int]"  # C ints, since a Python list takes nine times the memory and the seven OLMES tasks have 7 million ids
Encode = Callable[[Sequence[Pair]], Sequence[Sequence[int]]]
SLICE = 512  # pairs encoded at a time, since a tokenizer returns a hundred bytes per token besides its id


class Encodings:
    """Encodings by one tokenizer, stored in `folder`. Without a folder, and for tokenizers written in Python, nothing is stored.

    A file's name is a digest of the tokenizer's own serialization, the strings, and whether special tokens are added.
    """

    def __init__(self, folder: Path | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self._folder = folder if tokenizer.is_fast else None
        self._tokenizer = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).digest() if self._folder is not None else b""

    def encoded(self, pairs: Sequence[Pair], settings: str, encode: Encode) -> list[Ids]:
        """The result of `encode` for `pairs` of a context and a continuation, stored or new. `settings` identifies how it encodes."""
        if self._folder is None:
            return _in_slices(pairs, encode)
        digest = hashlib.sha256(self._tokenizer + settings.encode())
        for pair in pairs:
            for string in pair:
                data = string.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8) + data)
        file = self._folder / f"{digest.hexdigest()}.npz"
        damaged = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        with contextlib.suppress(OSError, *damaged), file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            found = [array("i", part.tobytes()) for part in np.split(kept["ids"].astype(np.intc), kept["ends"])[:-1]]
            with contextlib.suppress(OSError):  # a store that may only be read
                file.touch()  # `compresslab gc` removes what was not read for long
            return found
        ids = _in_slices(pairs, encode)
        with contextlib.suppress(OSError):  # if the disk is full, the ids are computed again next time
            self._folder.mkdir(parents=True, exist_ok=True)
            flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in ids])
            ends = np.cumsum([len(row) for row in ids])
            atomic_write(file, lambda part: np.savez_compressed(part, ids=flat, ends=ends))
        return ids


def _in_slices(pairs: Sequence[Pair], encode: Encode) -> list[Ids]:
    starts = range(0, len(pairs), SLICE)
    return [array("i", row) for start in starts for row in encode(pairs[start : start + SLICE])]
