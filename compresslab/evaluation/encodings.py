"""Token ids of a task's strings, kept on disk: variants of a study that share a tokenizer tokenize each task once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

Encode = Callable[[list[str]], list[list[int]]]


class Encodings:
    """Encodings by one tokenizer, remembered in `folder`; without a folder, and for tokenizers written in Python, nothing is kept.

    What decides a file's name is content: the tokenizer's own serialization, the strings, whether special tokens are added.
    """

    def __init__(self, folder: Path | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self._folder = folder if tokenizer.is_fast else None
        self._tokenizer = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).digest() if self._folder is not None else b""

    def encoded(self, strings: Sequence[str], settings: str, encode: Encode) -> list[list[int]]:
        """What `encode` gives for `strings`, or gave another process; `settings` says how it encodes."""
        if self._folder is None:
            return encode(list(strings))
        digest = hashlib.sha256(self._tokenizer + settings.encode())
        for string in strings:
            data = string.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8) + data)
        file = self._folder / f"{digest.hexdigest()}.npz"
        damaged = (ValueError, KeyError, zipfile.BadZipFile)
        with contextlib.suppress(OSError, *damaged), file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            return [part.tolist() for part in np.split(kept["ids"].astype(np.int64), kept["ends"])[:-1]]
        ids = encode(list(strings))
        with contextlib.suppress(OSError):  # a disk that is full costs time and nothing else
            self._folder.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{os.getpid()}-{file.name}")
            flat = np.fromiter((token for row in ids for token in row), dtype=np.int32)
            np.savez_compressed(part, ids=flat, ends=np.cumsum([len(row) for row in ids]))
            part.replace(file)
        return ids
