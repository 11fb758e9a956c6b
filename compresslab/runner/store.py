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
from typing import Any, TypeVar

import psutil

from compresslab.files import atomic_write
from compresslab.recipe.source import file_sha256
from compresslab.records import Cost, Record

DIGESTS = "digests.json"
Some = TypeVar("Some", bound=Record)


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
        """Whether the result is there. It is complete if it is there."""
        return self.folder(key).is_dir()

    def read(self, key: str, kind: type[Some], name: str = "record.json") -> Some:
        """A record of a result."""
        return kind.model_validate_json((self.folder(key) / name).read_bytes())

    def cost(self, key: str) -> Cost:
        """What the result cost when it was made."""
        return self.read(key, Cost, "cost.json")

    @contextmanager
    def stage(self, key: str) -> Iterator[Path]:
        """A new folder to make a result in; gone at the end unless `commit` has taken it."""
        self.staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{key}-", dir=self.staging))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, staged: Path) -> None:
        """Make a staged folder the result `key`, by one atomic rename. If another run was quicker, its result stays."""
        self.objects.mkdir(parents=True, exist_ok=True)
        files = (path for path in sorted(staged.rglob("*")) if path.is_file() and path.name != "cost.json")
        write_json(staged / DIGESTS, {str(path.relative_to(staged)): [path.stat().st_size, file_sha256(path)] for path in files})
        try:
            staged.rename(self.folder(key))
        except OSError:
            if not self.has(key):
                raise

    def sweep(self) -> None:
        """Remove what runs that are no longer alive left in the staging area."""
        for folder in self.staging.glob("*") if self.staging.is_dir() else ():
            owner = folder.name.split("-")[0]
            if not (owner.isdigit() and psutil.pid_exists(int(owner))):
                shutil.rmtree(folder, ignore_errors=True)

    def remember(self, study: str, facts: dict[str, Any]) -> None:
        """Note which keys a study uses."""
        self.studies.mkdir(parents=True, exist_ok=True)
        write_json(self.note(study), facts)

    def note(self, study: str) -> Path:
        """The file that says which keys a study uses."""
        return self.studies / f"{study}.json"

    def remembered(self) -> dict[str, dict[str, Any]]:
        """What is noted of every study, by name, without notes that cannot be read."""
        found = {}
        for path in sorted(self.studies.glob("*.json")) if self.studies.is_dir() else ():
            with suppress(ValueError):
                facts = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(facts, dict) and isinstance(facts.get("variants"), dict):
                    found[path.stem] = facts
        return found


def write_record(folder: Path, record: Record, name: str = "record.json") -> None:
    """Write a record as JSON with sorted keys: equal records are equal bytes."""
    write_json(folder / name, json.loads(record.model_dump_json()))


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
