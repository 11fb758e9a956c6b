"""Answers written down piece by piece, so that an evaluation that was stopped resumes where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from compresslab.files import atomic_write

Piece = TypeVar("Piece")


class Journal:
    """The answers to the first pieces of one engine's work, in a file of one line a piece. Without a folder nothing is kept.

    A piece is what is computed together. Pieces are the same however often the work is begun, so a piece that is computed again gives the
    same answer, bit for bit.

    Args:
        folder: of this model's journals. Who keeps the results removes it once they are safe.
        content: what decides the pieces (engine, token ids, sizes); the journal of other work is not resumed from.

    Attributes:
        answers: to the first pieces, in order.
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
        """Write down the answer to the next piece, anything that JSON holds."""
        self.answers.append(answer)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(answer) + "\n")

    def _read(self) -> list[Any]:
        """The whole lines; what a stopped process left of its last line is cut off."""
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        whole: list[str] = []
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
                whole.append(line)
        atomic_write(self._file, "".join(whole))
        return answers


def resume(
    pieces: Iterable[Piece], compute: Callable[[Piece], Any], journal: Journal, again: Collection[int] = ()
) -> Iterator[tuple[Piece, Any]]:
    """Each piece with its answer, in order: from the journal where it has one, else computed and written down.

    Args:
        compute: gives a piece's answer, anything that JSON holds.
        again: numbers of pieces that are computed although the journal has their answers, because later pieces need what the computation
            leaves behind (keys and values).
    """
    known = len(journal.answers)
    for number, piece in enumerate(pieces):
        if number >= known:
            journal.add(compute(piece))
        elif number in again:
            compute(piece)
        yield piece, journal.answers[number]
