"""Journals of answers, from which a stopped evaluation resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Piece = TypeVar("Piece")


class Journal:
    """The answers to the first pieces of one engine's work, in a file with one line per piece. Without a folder nothing is written.

    A piece is computed at once. The division into pieces is deterministic, so a piece that is computed again has the same answer, bit for
    bit. A line has the number of its piece, the work that it belongs to, the answer, and a digest of all three. Other lines are passed
    over: half a line of a process that was killed, damaged ones, and what another process wrote at the same time.

    Args:
        folder: folder of this model's journals. The runner removes it when the results are stored.
        content: the data that decide the pieces (engine, token ids of all prompts, sizes), which identify the journal.

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
            self._work = digest.hexdigest()
            self._file = folder / f"{self._work}.jsonl"
            self.answers = self._read(self._file)

    def add(self, answer: Any) -> None:
        """Append the answer to the next piece, a JSON value."""
        number = len(self.answers)
        self.answers.append(answer)
        if self._file is not None:
            stated = {"piece": number, "work": self._work, "answer": answer, "digest": _digest(number, self._work, answer)}
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # An empty line before it ends what a killed process has left of its last line. One call writes all, so that lines of two
            # processes do not mix.
            line = f"\n{json.dumps(stated)}\n".encode()
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                while line:
                    line = line[os.write(descriptor, line) :]
            finally:
                os.close(descriptor)

    def _read(self, file: Path) -> list[Any]:
        """The answers of the lines that continue the row of those before them."""
        answers: list[Any] = []
        if not file.is_file():
            return answers
        for line in file.read_bytes().splitlines():
            try:
                stated = json.loads(line)
                number, work, answer = stated["piece"], stated["work"], stated["answer"]
                if (number, work) == (len(answers), self._work) and stated["digest"] == _digest(number, work, answer):
                    answers.append(answer)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return answers


def _digest(number: int, work: str, answer: Any) -> str:
    return hashlib.sha256(json.dumps([number, work, answer]).encode()).hexdigest()


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
