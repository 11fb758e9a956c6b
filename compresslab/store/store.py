"""The content-addressed store: one folder a result, which appears whole or not at all.

A result is on the disk before it appears, and `digests.json` tells its files from damaged ones and from those of another result.

<root>/objects/<key>/     what a node made: record.json, cost.json, and model/ or items.parquet; digests.json of all but the cost.
                          Of a model that is not copied, reference.json has the digests and place.json the folder
<root>/staging/<key>-*/   what the holder of a lease is making; a crash leaves rubbish only here
<root>/leases/            who makes, evaluates or removes what (`store.leases`)
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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from compresslab.files import atomic_write, make_folder, sync
from compresslab.records import Cost, Record, StoredRecord, StudyNote, UnreadableRecord, read_record
from compresslab.store.digests import DamagedDigests, FileDigests
from compresslab.store.leases import Leases
from compresslab.store.reference import model_folder, referred_to

# The lease under which notes are changed and results are removed. Keys are hexadecimal, so it is none of them.
WHOLE_STORE = "store"
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
        self.running = root / "running"
        self.leases = Leases(root / "leases")
        self.digests = FileDigests()

    def folder(self, key: str) -> Path:
        """Where the result `key` is, or would be."""
        return self.objects / key

    def model(self, key: str) -> Path:
        """The model folder of a model node, which plain transformers loads; it may be a folder of the user that the store refers to."""
        return model_folder(self.folder(key))

    def refers(self, key: str) -> bool:
        """Whether a result's model is a folder of the user."""
        return referred_to(self.folder(key)) is not None

    def run_log(self, study: str) -> Path:
        """The log of a study's runs: what they told on the terminal, or would have told where bars were shown."""
        return self.logs / f"run-{study}.log"

    def checkpoints(self, key: str) -> Path:
        """Where the step that makes `key` keeps how far it has come."""
        return self.root / "checkpoints" / key

    def occupied(self, key: str) -> bool:
        """Whether there is anything at a result's place."""
        return os.path.lexists(self.folder(key))

    def has(self, key: str) -> bool:
        """Whether the result is there with all its files; `holds` says whether its record can be read, too."""
        return self.occupied(key) and not self.problem(key, None)

    def holds(self, key: str, kind: type[StoredRecord] | None) -> bool:
        """Whether the result is there, and nothing is wrong with it at a glance."""
        return self.occupied(key) and not self.problem(key, kind)

    def problem(self, key: str, kind: type[StoredRecord] | None, *, every_byte: bool = False) -> str:
        """What is wrong with a result, in words; mostly empty.

        At a glance: a file that is missing, of another size or (but for models and large files) of other bytes; a record that cannot be
        read; a result that was made from another one than the store holds.

        Args:
            every_byte: whether models and large files are read, too.
        """
        if changed := next(self.digests.changes(self.folder(key), every_byte=every_byte), ""):
            return changed
        try:
            if kind is not None:
                self.read(key, kind)
            return next(self.replaced(key), "")
        except UnreadableRecord as error:
            return f"record.json {error.problem}"
        except DamagedDigests as error:  # it was removed meanwhile
            return str(error)

    def replaced(self, key: str) -> Iterator[str]:
        """The results from which a result was made and in whose place the store holds others, in words.

        Raises:
            DamagedDigests: the result is not there, or cannot be used.
        """
        for parent, content in self.digests.read(self.folder(key)).made_from.items():
            with suppress(DamagedDigests):
                if content != self.content(parent):
                    yield f"it was made from another {parent} than the one in the store"

    def made_from(self, keys: Iterable[str]) -> dict[str, str]:
        """What a result that is made from these results is made from: their `content` and that of all before them, by key.

        Raises:
            DamagedDigests: one of them is not there, or cannot be used.
        """
        found: dict[str, str] = {}
        for key in keys:
            read = self.digests.read(self.folder(key))
            found |= {**read.made_from, key: read.content}
        return found

    def unwritten(self, key: str) -> list[str]:
        """The files of a result that no run wrote.

        Raises:
            DamagedDigests: the result is not there, or cannot be used.
        """
        return self.digests.unwritten(self.folder(key))

    def content(self, key: str) -> str:
        """One digest of all files of a result.

        Raises:
            DamagedDigests: it is not there, or cannot be used.
        """
        return self.digests.read(self.folder(key)).content

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
        """A new folder to make a result in, for the holder of the lease of `key`; gone at the end unless `commit` has taken it."""
        make_folder(self.staging)
        folder = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self.staging))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, staged: Path, kind: type[StoredRecord] | None = None, made_from: Mapping[str, str] | None = None) -> None:
        """Make a staged folder the result `key`, by one atomic rename. If another run was quicker, its result stays, if it can be used.

        All files and names are on the disk before the rename, and the new name after it, so that a power failure leaves no result that
        looks whole and is not.

        Args:
            kind: of the result's record, if it has one.
            made_from: of the results that it was made from (`made_from`).

        Raises:
            OSError: the disk could not write it.
        """
        make_folder(self.objects)
        self.digests.write(staged, made_from or {})
        sync(self.staging)
        if self.occupied(key) and (not self.holds(key, kind) or (self.refers(key) and referred_to(staged) is None)):
            self.discard(key)
        try:
            staged.rename(self.folder(key))
        except OSError:
            if not self.holds(key, kind):
                raise
        sync(self.objects)

    def discard(self, key: str) -> None:
        """Remove a result. It is gone at once, so that nobody meets half of it."""
        with self.stage(key) as folder:
            try:
                self.folder(key).rename(folder / "discarded")
            except FileNotFoundError:
                if self.occupied(key):
                    raise

    def sweep(self) -> None:
        """Remove what runs that have ended left: staged folders, and notes of running nodes, of keys whose lease can be had."""
        for folder in sorted(self.staging.glob("*")):
            with self.leases.held(folder.name.rpartition("-")[0] or folder.name) as lease:
                if lease is not None:
                    shutil.rmtree(folder, ignore_errors=True)
        for file in sorted(self.running.glob("*.json")):
            with self.leases.held(file.stem) as lease:
                if lease is not None:
                    file.unlink(missing_ok=True)
        self.leases.sweep()

    def remember(self, study: str, noted: StudyNote) -> None:
        """Note which keys a study uses."""
        make_folder(self.studies)
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
        return sorted(path for path in self.studies.glob("*.json") if not path.name.startswith("."))  # what a killed run was writing

    def _noted(self, path: Path) -> StudyNote | UnreadableRecord:
        try:
            return read_record(path, StudyNote, f"run the recipe of {path.stem} once more, or remove this file if the study may go")
        except UnreadableRecord as error:
            return error


def write_record(folder: Path, record: Record, name: str = "record.json") -> None:
    """Write a record as JSON with sorted keys: equal records are equal bytes."""
    write_json(folder / name, json.loads(record.model_dump_json()))


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
