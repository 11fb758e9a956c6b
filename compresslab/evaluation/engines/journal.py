"""Journals of answers, from which a stopped evaluation resumes, and which several processes fill together."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from compresslab.models.ranks import ALONE, Ranks

# Seconds after which processes exchange their answers: few are lost with a process, and none that is done with its part waits for long. A
# round lasts at least as long as some pieces take, since the processes wait for one another at its end.
ROUND, PIECES_A_ROUND = 20.0, 4


class Journal:
    """The answers to pieces of one engine's work, in a file with one line per piece. Without a folder nothing is written.

    A piece is computed at once. The division into pieces is deterministic, so a piece that is computed again, or by another process, has
    the same answer, bit for bit. A line has the number of its piece, the work that it belongs to, the answer, and a digest of all three.
    Other lines are passed over: half a line of a process that was killed, damaged ones, and what another process wrote at the same time.

    Args:
        folder: folder of this model's journals. The runner removes it when the results are stored.
        content: the data that decide the pieces (engine, token ids of all prompts, sizes), which identify the journal.
        ranks: the processes that compute the work together. The first of them has the file.

    Attributes:
        answers: the answers that are known, by the number of their piece.
    """

    def __init__(self, folder: Path | None, content: Iterable[bytes], ranks: Ranks = ALONE) -> None:
        self.answers: dict[int, Any] = {}
        self.ranks = ranks
        self._new: dict[int, Any] = {}
        self._file: Path | None = None
        if folder is not None and ranks.rank == 0:
            digest = hashlib.sha256()
            for part in content:
                digest.update(len(part).to_bytes(8) + part)
            self._work = digest.hexdigest()
            self._file = folder / f"{self._work}.jsonl"
            self.answers = self._read(self._file)
        self.answers = ranks.shared(self.answers)

    def add(self, number: int, answer: Any) -> None:
        """Add the answer to a piece, a JSON value."""
        self.answers[number] = self._new[number] = answer
        if self._file is not None:
            self._write(self._file, number, answer)

    def exchange(self, *, finished: bool) -> bool:
        """Add the answers that the other processes have computed since the last time. All processes must call this.

        Args:
            finished: whether this process has done its part.

        Returns: whether any process has done its part.
        """
        told = self.ranks.gathered((self._new, finished))
        for rank, (found, _) in enumerate(told):
            if rank != self.ranks.rank:
                for number, answer in found.items():
                    self.add(number, answer)
        self._new = {}
        return any(ended for _, ended in told)

    def _write(self, file: Path, number: int, answer: Any) -> None:
        stated = {"piece": number, "work": self._work, "answer": answer, "digest": _digest(number, self._work, answer)}
        file.parent.mkdir(parents=True, exist_ok=True)
        # An empty line before it ends what a killed process has left of its last line. One call writes all, so that lines of two processes
        # do not mix.
        line = f"\n{json.dumps(stated)}\n".encode()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while line:
                line = line[os.write(descriptor, line) :]
        finally:
            os.close(descriptor)

    def _read(self, file: Path) -> dict[int, Any]:
        """The answers of the lines that are whole and belong to this work."""
        answers: dict[int, Any] = {}
        if not file.is_file():
            return answers
        for line in file.read_bytes().splitlines():
            try:
                stated = json.loads(line)
                number, work, answer = stated["piece"], stated["work"], stated["answer"]
                if work == self._work and type(number) is int and stated["digest"] == _digest(number, work, answer):
                    answers[number] = answer
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return answers


def _digest(number: int, work: str, answer: Any) -> str:
    return hashlib.sha256(json.dumps([number, work, answer]).encode()).hexdigest()


def complete(
    count: int, compute: Callable[[Sequence[int]], Iterator[Any]], journal: Journal, progress: Callable[[float], None]
) -> list[Any]:
    """The answers to all pieces, in order. Those that the journal has not are computed and added to it.

    Several processes compute consecutive parts of what is missing. After each round they exchange what they have, and when one has done
    its part they divide the rest anew.

    Args:
        count: number of pieces.
        compute: gives the answers, JSON values, to the pieces with these numbers, which ascend, one after the other.
        progress: called with the share done in [0, 1].
    """
    told = 0.0

    def tell() -> None:
        nonlocal told
        told = len(journal.answers) / count
        progress(told)

    while missing := [number for number in range(count) if number not in journal.answers]:
        own = journal.ranks.part(missing)
        left = zip(own, compute(own), strict=True)
        while not journal.exchange(finished=_add_some(left, journal, tell)):
            pass
    if told < 1:  # what is left came from the journal, or from another process
        progress(1.0)
    return [journal.answers[number] for number in range(count)]


def _add_some(left: Iterator[tuple[int, Any]], journal: Journal, added: Callable[[], None]) -> bool:
    """Compute answers of this process's part, by several processes for one round. Whether all are computed."""
    began = time.monotonic()
    for done, (number, answer) in enumerate(left, 1):
        journal.add(number, answer)
        added()
        if journal.ranks.size > 1 and done >= PIECES_A_ROUND and time.monotonic() - began > ROUND:
            return False
    return True
