"""Answers written down piece by piece, so that an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compresslab.files import atomic_write


class Journal:
    """The finished pieces of one set of requests, in a file of a line each. Without a folder it keeps nothing.

    A piece is what is computed together; pieces are the same however often the work is begun, so what a piece gave once is what it would
    give again, bit for bit.

    Args:
        folder: of this model's journals; who keeps the results removes it, once they are safe.
        work: what decides the pieces (token ids, sizes); a journal of other work is not gone on from.

    Attributes:
        pieces: what is known of the first pieces, in order.
    """

    def __init__(self, folder: Path | None, work: Iterable[bytes]) -> None:
        self.pieces: list[Any] = []
        self._file: Path | None = None
        if folder is not None:
            digest = hashlib.sha256()
            for part in work:
                digest.update(len(part).to_bytes(8) + part)
            self._file = folder / f"{digest.hexdigest()}.jsonl"
            self.pieces = self._read()

    def add(self, piece: Any) -> None:
        """Write down the next piece, anything that JSON holds."""
        self.pieces.append(piece)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(piece) + "\n")

    def _read(self) -> list[Any]:
        """The whole lines; what a stopped process left of its last one is cut off."""
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        whole: list[str] = []
        pieces: list[Any] = []
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                try:
                    pieces.append(json.loads(line))
                except ValueError:
                    break
                if not line.endswith("\n"):
                    pieces.pop()
                    break
                whole.append(line)
        atomic_write(self._file, "".join(whole))
        return pieces
