"""Leases: one holder at a time for each key of a store, among all processes and machines that share it.

Each key has a lock file. The kernel drops its lock (`flock`) when the holder dies, whatever ended it, in any container of the machine. Such
locks may not reach other machines that share the file system. A lease is therefore a second file, which its holder touches every `BEAT`
seconds. A lease of another machine that nobody touched for `SILENCE` seconds is taken over. Only the clock of the waiting process counts.

<root>/leases/<key>.lock    locked by the holder
<root>/leases/<key>.<n>     the n-th holder since the key was free; the highest number holds
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from compresslab.files import make_folder
from compresslab.inputs import read_json

BEAT = 10.0
SILENCE = 90.0
POLL = 0.2
LONGEST = 10_000  # bytes of a lease file
# What `flock` raises where the file system has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Lease:
    """The right to make, to evaluate or to remove what belongs to one key. It ends with `release`, or with the process.

    Attributes:
        lost: whether another machine has taken the lease over, because this process was silent for too long.
    """

    def __init__(self, file: Path, token: str, lock: int, lock_file: Path) -> None:
        self.lost = False
        self._file, self._token, self._lock, self._lock_file = file, token, lock, lock_file

    def beat(self) -> None:
        """Show the other machines that the holder lives, and look whether one of them has taken over."""
        with contextlib.suppress(OSError):
            os.utime(self._file)
        self.lost = self.lost or _read(self._file).get("token") != self._token or _top(_generations(self._lock_file))[1] != self._file

    def release(self) -> None:
        """End the lease."""
        with contextlib.suppress(OSError):
            if not self.lost:
                self._file.unlink()
                self._lock_file.unlink()  # before the lock is dropped: whoever opened this file meets a lock without a name, and opens anew
        os.close(self._lock)


class Leases:
    """The leases of a store, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: set[Lease] = set()
        self._guard = threading.Lock()
        self._beating: threading.Thread | None = None
        self._seen: dict[Path, tuple[tuple[object, int], float]] = {}

    def acquire(self, key: str) -> Lease | None:
        """The lease of a key; `None` while somebody else holds it.

        Raises:
            OSError: nothing can be written into the store.
        """
        make_folder(self.folder)
        lock_file = self.folder / f"{key}.lock"
        lock = _locked(lock_file)
        if lock is None:
            return None
        descriptor, by_kernel = lock
        try:
            file = self._take(lock_file, by_kernel)
        except BaseException:
            os.close(descriptor)
            raise
        if file is None:
            os.close(descriptor)
            return None
        lease = Lease(*file, descriptor, lock_file)
        with self._guard:
            self._held.add(lease)
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, daemon=True)
                self._beating.start()
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease."""
        with self._guard:
            self._held.discard(lease)
        lease.release()

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[Lease | None]:
        """The lease of a key for the time of a `with` block; `None` while somebody else holds it."""
        lease = self.acquire(key)
        try:
            yield lease
        finally:
            if lease is not None:
                self.release(lease)

    @contextlib.contextmanager
    def waited(self, key: str) -> Iterator[Lease]:
        """The lease of a key for the time of a `with` block, as soon as nobody else holds it."""
        while (lease := self.acquire(key)) is None:
            time.sleep(POLL)
        try:
            yield lease
        finally:
            self.release(lease)

    def sweep(self) -> None:
        """Remove the files of holders that have ended."""
        for file in sorted(self.folder.glob("*.*")):
            with contextlib.suppress(OSError), self.held(file.stem):
                pass

    def holder(self, key: str) -> str:
        """Who holds a key, for a message; empty if nobody does or it is not known."""
        number, file = _top(_generations(self.folder / f"{key}.lock"))
        stated = _read(file) if number else {}
        return f"process {stated['process']} on {stated['host']}" if {"process", "host"} <= stated.keys() else ""

    def _take(self, lock_file: Path, by_kernel: bool) -> tuple[Path, str] | None:
        """A lease file of our own as the highest; `None` if the holder of the present one may live."""
        number, present = _top(_generations(lock_file))
        if number and not self._is_dead(present, by_kernel):
            return None
        token = secrets.token_hex(16)
        file = lock_file.with_suffix(f".{number + 1}")
        stated = json.dumps({"token": token, "kernel": _kernel(), "host": socket.gethostname(), "process": os.getpid()})
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another machine was quicker
            return None
        try:
            os.write(descriptor, stated.encode())
        finally:
            os.close(descriptor)
        generations = _generations(lock_file)
        if _top(generations)[1] != file:
            file.unlink(missing_ok=True)
            return None
        for older in generations.values():
            if older != file:
                older.unlink(missing_ok=True)
        return file, token

    def _is_dead(self, file: Path, by_kernel: bool) -> bool:
        """Whether the holder of a lease file has ended: on this machine the lock that we have got says so, on others silence does."""
        try:
            touched = file.stat().st_mtime_ns
        except FileNotFoundError:
            return False  # it has just been released; ask again
        stated = _read(file)
        if by_kernel and stated.get("kernel") == _kernel():
            return True
        seen, shown = self._seen.get(file), (stated.get("token"), touched)
        if seen is None or seen[0] != shown:
            self._seen[file] = (shown, time.monotonic())
            return False
        return time.monotonic() - seen[1] > SILENCE

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._guard:
                held = list(self._held)
            for lease in held:
                lease.beat()


def _locked(file: Path) -> tuple[int, bool] | None:
    """A descriptor of a lock file that this process has locked, and whether the kernel keeps the lock; `None` if somebody else has it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        by_kernel = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            by_kernel = False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor, by_kernel
        os.close(descriptor)  # its holder removed it between our two calls


def _generations(lock_file: Path) -> dict[int, Path]:
    """The lease files of a key by number."""
    found = {}
    for file in lock_file.parent.glob(f"{lock_file.stem}.*"):
        if file.suffix[1:].isdecimal():
            found[int(file.suffix[1:])] = file
    return found


def _top(generations: dict[int, Path]) -> tuple[int, Path]:
    """The highest number and its file; 0 if there is none."""
    number = max(generations, default=0)
    return number, generations.get(number, Path())


def _read(file: Path) -> dict[str, object]:
    """What a lease file says; nothing if it is gone, or not yet written, or damaged."""
    try:
        stated = read_json(file, LONGEST)
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _kernel() -> str:
    """What tells running kernels apart, the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"
