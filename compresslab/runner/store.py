"""The content-addressed store: one folder a result, which appears whole or not at all.

<root>/objects/<key>/     what a node made: record.json, cost.json, and model/ or items.parquet; digests.json of all but the cost
<root>/staging/           what is being made; a crash leaves rubbish only here
<root>/checkpoints/<key>/ how far a training step or an evaluation has come; gone when its result is there
<root>/encodings/         token ids of tasks, for all variants that share a tokenizer; may be deleted
<root>/logs/<key>.log     what the libraries printed while a node ran
<root>/logs/run-<study>.log   what a study's runs said of how far they were
<root>/studies/<study>.json   which study used which keys, for `ls` and `show`
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from compresslab.files import atomic_write
from compresslab.recipe.source import file_sha256
from compresslab.records import Cost, Record, StoredRecord, StudyNote, UnreadableRecord, read_record

DIGESTS = "digests.json"
Some = TypeVar("Some", bound=StoredRecord)


class Store:
    """A store below `root`, created on demand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"
        self.staging = root / "staging"
        self.logs = root / "logs"
        self.studies = root / "studies"
        self.encodings = root / "encodings"

    def folder(self, key: str) -> Path:
        """Where the result `key` is, or would be."""
        return self.objects / key

    def model(self, key: str) -> Path:
        """The model folder of a model node, which plain transformers loads."""
        return self.folder(key) / "model"

    def run_log(self, study: str) -> Path:
        """The log of a study's runs: what they told on the terminal, or would have told where bars were shown."""
        return self.logs / f"run-{study}.log"

    def checkpoints(self, key: str) -> Path:
        """Where the step that makes `key` keeps how far it has come."""
        return self.root / "checkpoints" / key

    def has(self, key: str) -> bool:
        """Whether the result is there; `holds` says whether it can be used."""
        return self.folder(key).is_dir()

    def holds(self, key: str, kind: type[StoredRecord] | None) -> bool:
        """Whether the result is there, and nothing is wrong with it at a glance."""
        return self.has(key) and not self.problem(key, kind)

    def problem(self, key: str, kind: type[StoredRecord] | None) -> str:
        """What is wrong with a result at a glance: a file that is missing or of another size, a record that cannot be read. Mostly empty.

        `upkeep.damages` looks at every byte.
        """
        if changed := next(changes(self.folder(key)), ""):
            return changed
        try:
            if kind is not None:
                self.read(key, kind)
        except UnreadableRecord as error:
            return f"record.json {error.problem}"
        return ""

    def read(self, key: str, kind: type[Some], name: str = "record.json") -> Some:
        """A record of a result.

        Raises:
            UnreadableRecord: it is missing, damaged or of another version.
        """
        return read_record(self.folder(key) / name, kind, "`compresslab verify` tells what else is damaged, and a run makes it again")

    def find(self, key: str, kind: type[Some]) -> Some | None:
        """A result's record; `None` if the store does not hold the result."""
        return self.read(key, kind) if self.holds(key, kind) else None

    def cost(self, key: str) -> Cost | None:
        """What the result cost when it was made; `None` if that cannot be told any more, which makes the result no worse."""
        with suppress(UnreadableRecord):
            return self.read(key, Cost, "cost.json")
        return None

    @contextmanager
    def stage(self, key: str) -> Iterator[Path]:
        """A new folder to make a result in; gone at the end unless `commit` has taken it."""
        self.staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{key}-", dir=self.staging))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, staged: Path, kind: type[StoredRecord] | None = None) -> None:
        """Make a staged folder the result `key`, by one atomic rename. If another run was quicker, its result stays, if it can be used.

        Args:
            kind: of the result's record, if it has one.
        """
        self.objects.mkdir(parents=True, exist_ok=True)
        files = (path for path in sorted(staged.rglob("*")) if path.is_file() and path.name != "cost.json")
        write_json(staged / DIGESTS, {str(path.relative_to(staged)): [path.stat().st_size, file_sha256(path)] for path in files})
        if self.has(key) and not self.holds(key, kind):
            self.discard(key)
        try:
            staged.rename(self.folder(key))
        except OSError:
            if not self.has(key):
                raise

    def discard(self, key: str) -> None:
        """Remove a result. It is gone at once, so that nobody meets half of it."""
        # Another run may have met the same damage and removed it.
        with self.stage(key) as folder, suppress(FileNotFoundError):
            self.folder(key).rename(folder / "discarded")

    def sweep(self) -> None:
        """Remove what runs that are no longer alive left in the staging area."""
        for folder in self.staging.glob("*") if self.staging.is_dir() else ():
            owner = folder.name.split("-")[0]
            if not (owner.isdigit() and psutil.pid_exists(int(owner))):
                shutil.rmtree(folder, ignore_errors=True)

    def remember(self, study: str, noted: StudyNote) -> None:
        """Note which keys a study uses."""
        self.studies.mkdir(parents=True, exist_ok=True)
        write_record(self.studies, noted, self.note(study).name)

    def note(self, study: str) -> Path:
        """The file that says which keys a study uses."""
        return self.studies / f"{study}.json"

    def notes(self) -> dict[str, StudyNote]:
        """What is noted of every study, by name, without notes that cannot be read."""
        found = {path.stem: self._noted(path) for path in self._note_files()}
        return {study: noted for study, noted in found.items() if isinstance(noted, StudyNote)}

    def broken_notes(self) -> list[UnreadableRecord]:
        """The notes that cannot be read, each with what is wrong and what to do."""
        return [noted for noted in map(self._noted, self._note_files()) if isinstance(noted, UnreadableRecord)]

    def _note_files(self) -> list[Path]:
        return sorted(self.studies.glob("*.json"))

    def _noted(self, path: Path) -> StudyNote | UnreadableRecord:
        try:
            return read_record(path, StudyNote, f"run the recipe of {path.stem} once more, or remove this file if the study may go")
        except UnreadableRecord as error:
            return error


def changes(folder: Path, *, every_byte: bool = False) -> Iterator[str]:
    """How the files of a result differ from those that were written: by size, and if `every_byte` is asked for by SHA-256."""
    try:
        stored = json.loads((folder / DIGESTS).read_bytes())
        written = {str(name): (int(size), str(digest)) for name, (size, digest) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        yield f"{DIGESTS} is missing or unreadable, so nothing can be said of the files"
        return
    for name, (size, digest) in sorted(written.items()):
        file = folder / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != size:
            yield f"{name} has {file.stat().st_size} bytes and was written with {size}"
        elif every_byte and file_sha256(file) != digest:
            yield f"{name} has other bytes than were written"
    if every_byte:
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        yield from (f"{name} was not written by a run" for name in sorted(there - set(written) - {DIGESTS, "cost.json"}))


def write_record(folder: Path, record: Record, name: str = "record.json") -> None:
    """Write a record as JSON with sorted keys: equal records are equal bytes."""
    write_json(folder / name, json.loads(record.model_dump_json()))


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
