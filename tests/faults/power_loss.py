"""Power failures at every file call: what a disk may hold afterwards never looks whole and is not.

A disk holds of a file what was flushed last, and of a folder the names that were flushed last. What was written since may be there, may be
lost, or may be zeros. This module records what is flushed, and at a chosen call builds every such image in a folder of its own.

    python tests/faults/power_loss.py [--commits 50]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

DATA = ("flushed", "all", "zeros", "half")
NAMES = ("all", "flushed")
CALLS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove")


class Disk:
    """What is on the disk below `root` while a program runs."""

    def __init__(self, root: Path, look: Callable[[], None]) -> None:
        self.root, self.look = root.resolve(), look
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, tuple[int, bool]]] = {}
        self.calls = 0

    def called(self) -> None:
        """A file call begins: the power may fail here."""
        self.calls += 1
        with _unrecorded():
            self.look()

    def flushed(self, descriptor: int) -> None:
        """Note that a file or a folder was flushed."""
        status, path = os.fstat(descriptor), Path(f"/proc/self/fd/{descriptor}")
        if stat.S_ISDIR(status.st_mode):
            self.folders[status.st_ino] = _entries(path.resolve())
        else:
            self.files[status.st_ino] = path.read_bytes()

    def images(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Everything that the disk may hold now, each as a folder."""
        live = {path.stat().st_ino: path for path in [self.root, *self.root.rglob("*")]}
        for data, names in itertools.product(DATA, NAMES):
            image = folder / f"{data}-{names}"
            self._folder(self.root.stat().st_ino, image, data, names, live)
            yield f"data {data}, names {names}", image
            shutil.rmtree(image)

    def _folder(self, inode: int, target: Path, data: str, names: str, live: Mapping[int, Path]) -> None:
        target.mkdir()
        there = _entries(live[inode]) if inode in live else {}
        for name, (child, is_folder) in (there if names == "all" else self.folders.get(inode, {})).items():
            if is_folder:
                self._folder(child, target / name, data, names, live)
            else:
                (target / name).write_bytes(self._content(child, data, live))

    def _content(self, inode: int, data: str, live: Mapping[int, Path]) -> bytes:
        kept = self.files.get(inode, b"")
        now = live[inode].read_bytes() if inode in live else kept
        if data == "flushed" or now == kept:
            return kept
        return {"all": now, "zeros": kept + bytes(max(0, len(now) - len(kept))), "half": now[: (len(kept) + len(now)) // 2]}[data]


def _entries(folder: Path) -> dict[str, tuple[int, bool]]:
    """The names in a folder, each with its inode and whether it is a folder."""
    return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}


_disk: Disk | None = None
_hooked = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _disk is not None and event in CALLS and any(str(_disk.root) in str(argument) for argument in arguments[:2]):
        _disk.called()


@contextlib.contextmanager
def _unrecorded() -> Iterator[None]:
    global _disk
    kept, _disk = _disk, None
    try:
        yield
    finally:
        _disk = kept


@contextlib.contextmanager
def recorded(disk: Disk) -> Iterator[None]:
    """Record what is flushed, and look at the disk at every file call, for the time of a `with` block."""
    global _disk, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        disk.called()
        fsync(descriptor)
        with _unrecorded():
            disk.flushed(descriptor)

    os.fsync, _disk = noting, disk
    try:
        yield
    finally:
        os.fsync, _disk = fsync, None


Work = Callable[[Path, Callable[[object], None]], None]
Check = Callable[[Path, Sequence[object]], str]
Kind = Callable[[int], tuple[Work, Check]]


class Found(NamedTuple):
    """At how many calls the power failed, how many images were looked at, and what was wrong."""

    calls: int
    images: int
    wrong: list[str]


def try_every_call(work: Work, check: Check) -> Found:
    """Let the power fail at every file call of a piece of work, and look at every image of the disk.

    Args:
        work: does it in a folder that is empty and flushed; it says of each part that it is done, which must survive.
        check: given an image and the parts that were said to be done, says what is wrong with it; empty if nothing is.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="power-loss-", dir=memory if memory.is_dir() else None) as scratch:
        root, folder = Path(scratch) / "root", Path(scratch) / "images"
        root.mkdir()
        folder.mkdir()
        done: list[object] = []
        wrong: list[str] = []
        images = 0

        def look() -> None:
            nonlocal images
            for what, image in disk.images(folder):
                images += 1
                if problem := check(image, done):
                    wrong.append(f"call {disk.calls}, {what}: {problem}")

        disk = Disk(root, look)
        with recorded(disk):
            work(root, done.append)
        look()  # after the last call, too
        return Found(disk.calls, images, wrong)


def commits(count: int) -> tuple[Work, Check]:
    """Commits of results of several files, one of which replaces a damaged one; every commit that was done is there and whole."""
    from compresslab.store.store import Store, write_json

    def content(number: int) -> dict[str, bytes]:
        return {"model/weights": bytes([number + 1]) * 3000, "items": bytes([number + 101]) * 500}

    def work(root: Path, done: Callable[[object], None]) -> None:
        store = Store(root)
        (store.folder(f"{0:024x}") / "model").mkdir(parents=True)
        for number in range(count):
            key = f"{number:024x}"
            with store.leases.waited(key), store.stage(key) as staged:
                (staged / "model").mkdir()
                for name, data in content(number).items():
                    (staged / name).write_bytes(data)
                write_json(staged / "cost.json", {"seconds": number})
                store.commit(key, staged)
            done(key)

    def check(image: Path, done: Sequence[object]) -> str:
        store = Store(image)
        for number in range(count):
            key = f"{number:024x}"
            if store.has(key):
                for name, data in content(number).items():
                    if (store.folder(key) / name).read_bytes() != data:
                        return f"{key} looks whole and {name} is not"
            elif key in done:
                return f"{key} was committed and is not there: {store.problem(key, None)}"
        return ""

    return work, check


def journal(count: int) -> tuple[Work, Check]:
    """A journal: what is read back begins as what was written, whatever is lost."""
    from compresslab.evaluation.engines.journal import Journal

    def work(root: Path, done: Callable[[object], None]) -> None:
        kept = Journal(root / "journals", [b"work"])
        for number in range(count):
            kept.add(number, [number, -number])
            done(number)

    def check(image: Path, _: Sequence[object]) -> str:
        answers = Journal(image / "journals", [b"work"]).answers
        expected = {number: [number, -number] for number in range(len(answers))}
        return "" if answers == expected else f"the journal reads {answers}"

    return work, check


def checkpoints(count: int) -> tuple[Work, Check]:
    """Checkpoints: what is loaded is one that was saved, and not an older one than the last that was done."""
    import torch

    from compresslab.steps.training.checkpoints import Checkpoints, TrainingState

    def work(root: Path, done: Callable[[object], None]) -> None:
        kept = Checkpoints(root / "checkpoints", {"seed": 0})
        for number in range(1, count + 1):
            kept.save(TrainingState(number, [1.0 / number], [], {"weights": torch.full((500,), float(number))}))
            done(number)

    def check(image: Path, done: Sequence[object]) -> str:
        state = Checkpoints(image / "checkpoints", {"seed": 0}).load(lambda _: None)
        if state is None:
            return f"checkpoint {done[-1]} is lost" if done else ""
        if state.step < len(done) or not bool((state.tensors["weights"] == state.step).all()):
            return f"checkpoint {state.step} has other weights, or is older than {len(done)}"
        return ""

    return work, check


def table(count: int) -> list[tuple[str, Found]]:
    """Every kind of work, failed at every call."""
    works = {"commits": commits(count), "journal lines": journal(count), "checkpoints": checkpoints(count)}
    return [(f"{count} {name}", try_every_call(*one)) for name, one in works.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=50)
    wrong = 0
    for name, found in table(parser.parse_args().commits):
        wrong += len(found.wrong)
        print(f"{name:>20}: the power failed at {found.calls} calls, {found.images} images of the disk, wrong: {len(found.wrong)}")
        for line in found.wrong[:5]:
            print(f"    {line}")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
