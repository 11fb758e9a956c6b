"""The digests of a result: which files it was written with, and from which results it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compresslab.files import atomic_write, sync
from compresslab.inputs import LARGEST_RECORD, Stamp, read_json, sha256_of
from compresslab.store.reference import PLACE, referred_to

DIGESTS = "digests.json"
# What a result cost is told beside it and is no part of it.
BESIDE = (DIGESTS, "cost.json", PLACE)
VERSION = 2
# Weights are compared by size at a glance, and so is the rest of a model's folder; all other files by every byte.
WEIGHTS = (".safetensors", ".pt")


@dataclass(frozen=True)
class Digests:
    """What is written in a result's `digests.json`.

    Attributes:
        files: size in bytes and SHA-256 of each file, by its path in the folder.
        made_from: the `content` of every result that this one was made from, as it was read, from its parents to the base, by key.
    """

    files: dict[str, tuple[int, str]]
    made_from: dict[str, str]

    @cached_property
    def content(self) -> str:
        """One digest of all files. Equal results have equal ones."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


class FileDigests:
    """SHA-256 of files, each computed once while nothing says that the file has changed, also when its folder gets another name."""

    def __init__(self) -> None:
        self._known: dict[Stamp, str] = {}
        self._read: dict[Stamp, Digests] = {}

    def read(self, folder: Path) -> Digests:
        """The digests of a result, each file parsed once.

        Raises:
            DamagedDigests: they are missing, damaged, or of another version.
        """
        try:
            stamp = Stamp.of((folder / DIGESTS).stat())
        except OSError:
            return read_digests(folder)
        if stamp in self._read:
            return self._read[stamp]
        read = read_digests(folder)
        if stamp.settled:
            self._read[stamp] = read
        return read

    def of(self, path: Path) -> str:
        """The SHA-256 of a file."""
        stamp = Stamp.of(path.stat())
        if stamp in self._known:
            return self._known[stamp]
        digest = sha256_of(path)
        if stamp.settled:
            self._known[stamp] = digest
        return digest

    def changes(self, folder: Path, *, every_byte: bool) -> Iterator[str]:
        """How the files of a result differ from those that were written, in words.

        Args:
            every_byte: whether weights and the rest of models are compared by SHA-256, too.
        """
        try:
            written = self.read(folder).files
        except DamagedDigests as damage:
            yield str(damage)
            return
        for name, (size, digest) in sorted(written.items()):
            by_size = not every_byte and (name.startswith("model/") or name.endswith(WEIGHTS))
            try:
                if change := self._change(folder / name, size, "" if by_size else digest):
                    yield f"{name} {change}"
            except OSError as error:
                yield f"{name} cannot be read ({error.strerror})"
        if (reference := referred_to(folder)) is not None:
            yield from reference.changes(every_byte=every_byte)

    def unwritten(self, folder: Path) -> list[str]:
        """The files of a result that no run wrote, by their paths in the folder. A loader may read them.

        Files of the system, whose names begin with a dot, are left out.
        """
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() and not path.name.startswith(".")}
        reference = referred_to(folder)
        added = [str(reference.folder / name) for name in reference.added()] if reference is not None else []
        return sorted(there - set(self.read(folder).files) - set(BESIDE)) + added

    def _change(self, file: Path, size: int, digest: str) -> str:
        """How a file differs from what was written; without a digest its size alone counts."""
        if not _is_plain(file):
            return "is missing"
        if (found := file.stat().st_size) != size:
            return f"has {found} bytes and was written with {size}"
        return "has other bytes than were written" if digest and self.of(file) != digest else ""

    def write(self, folder: Path, made_from: Mapping[str, str]) -> None:
        """Write the digests of a staged folder, and flush all that is in it to the disk.

        Raises:
            OSError: the disk could not write it.
        """
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if _is_plain(path)}
        # The disk writes while the processor computes digests, so the one hides the other.
        with ThreadPoolExecutor(1) as pool:
            flushed = [pool.submit(sync, path) for path in files.values()]
            digests = {name: (path.stat().st_size, self.of(path)) for name, path in files.items() if name not in BESIDE}
            for one in flushed:
                one.result()
        content = {"version": VERSION, "files": digests, "made_from": dict(made_from)}
        atomic_write(folder / DIGESTS, json.dumps(content, indent=2, sort_keys=True) + "\n")
        for path in folder.rglob("*"):
            if path.is_dir():
                sync(path)


class DamagedDigests(Exception):
    """A `digests.json` from which nothing can be said of the files; the message is to be read after the result's name."""


def read_digests(folder: Path) -> Digests:
    """The digests of a result.

    Raises:
        DamagedDigests: they are missing, damaged, or of another version.
    """
    try:
        stored: Any = read_json(folder / DIGESTS, LARGEST_RECORD)
        if stored["version"] != VERSION:
            raise DamagedDigests(f"{DIGESTS} is of another version of compresslab")
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in stored["files"].items()}
        return Digests(files, {str(key): str(content) for key, content in stored["made_from"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedDigests(f"{DIGESTS} is missing or unreadable, so nothing can be said of the files") from error


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()
