"""Journals of answers, from which a stopped evaluation resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from compresslab.files import atomic_write

Piece = TypeVar("Piece")


class Journal:
    """The answers to the first pieces of one engine's work, in a file with one line per piece. Without a folder nothing is written.

    A piece is computed at once. The division into pieces is deterministic, so a piece that is computed again has the same answer, bit for
    bit.

    Args:
        folder: folder of this model's journals. The runner removes it when the results are stored.
        content: the data that decide the pieces (engine, token ids, sizes), which identify the journal.

    Attributes:
        answers: answers to the first pieces, in order.
    """

    def __init__(self, folder: Path | None, content: Iterable[bytes]) -> None:
        self.answers: list[Any] = []
        self._file: Path | None = None
        if folder is not None:
            digest = hashlib.sha256()
            for part in content:
                digest.update(len(part).to_bytes(8) + part)
            self._file = folder / f"{digest.hexdigest()}.jsonl"
            self.answers = self._read()

    def add(self, answer: Any) -> None:
        """Append the answer to the next piece, a JSON value."""
        self.answers.append(answer)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(answer) + "\n")

    def _read(self) -> list[Any]:
        """The complete lines. An incomplete last line of a stopped process is removed from the file."""
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        complete: list[str] = []
        answers: list[Any] = []
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                try:
                    answers.append(json.loads(line))
                except ValueError:
                    break
                if not line.endswith("\n"):
                    answers.pop()
                    break
                complete.append(line)
        atomic_write(self._file, "".join(complete))
        return answers


def resume(
    pieces: Iterable[Piece], compute: Callable[[Piece], Any], journal: Journal, recomputed: Collection[int] = ()
) -> Iterator[tuple[Piece, Any]]:
    """Each piece with its answer, in order. Answers that are not in the journal are computed and added to it.

    Args:
        compute: returns a piece's answer, a JSON value.
        recomputed: indices of pieces to compute although the journal has their answers, because later pieces need their keys and values.
    """
    known = len(journal.answers)
    for number, piece in enumerate(pieces):
        if number >= known:
            journal.add(compute(piece))
        elif number in recomputed:
            compute(piece)
        yield piece, journal.answers[number]
