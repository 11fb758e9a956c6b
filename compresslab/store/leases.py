"""Leases: one holder at a time for each key of a store, among all processes and machines that share it.

Each key has a lock file. The kernel drops its lock (`flock`) when the holder dies, whatever ended it, in any container of the machine. Such
locks may not reach other machines that share the file system. A lease is therefore a second file, which its holder touches every `BEAT`
seconds. A lease of another machine is taken over after `SILENCE` seconds without a touch, by the clock of the process that waits, or after
`LONG_SILENCE` by that of the file system.

<root>/leases/<key>.lock    locked by the holder
<root>/leases/<key>.<n>     the n-th holder since the key was free; the highest number holds
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import secrets
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from compresslab.files import make_folder
from compresslab.inputs import read_json

BEAT = 10.0
SILENCE = 90.0
LONG_SILENCE = 900.0  # far more than clocks differ by
POLL = 0.2
LONGEST = 10_000  # bytes of a lease file
# What `flock` raises where the file system has no locks, and `link` where it has no second names.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Lease:
    """The right to make, to evaluate or to remove what belongs to one key. It ends with `release`, or with the process.

    The lock is a file object, so that a lease that nobody refers to any more, as after an interruption, is dropped.

    Attributes:
        lost: whether another machine has taken the lease over, because this process was silent for too long.
    """

    def __init__(self, file: Path, token: str, lock: FileIO, lock_file: Path) -> None:
        self.lost = False
        self._file, self._token, self._lock, self._lock_file = file, token, lock, lock_file

    def beat(self) -> None:
        """Show the other machines that the holder lives, and look whether one of them has taken over."""
        try:
            os.utime(self._file)
            stated = read_json(self._file, LONGEST)
            ours = stated["token"] == self._token and _top(_generations(self._lock_file))[1] == self._file
        except FileNotFoundError:
            ours = False
        except (OSError, ValueError, KeyError, TypeError):
            return  # a disk that cannot be read for a moment takes no lease away
        self.lost = self.lost or not ours

    def release(self) -> None:
        """End the lease."""
        with contextlib.suppress(OSError):
            if not self.lost:
                self._file.unlink()
                self._lock_file.unlink()  # before the lock is dropped: whoever opened this file meets a lock without a name, and opens anew
        self._lock.close()


class Leases:
    """The leases of a store, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._guard = threading.Lock()
        self._beating = False
        self._seen: dict[Path, tuple[tuple[object, int], float]] = {}

    def acquire(self, key: str) -> Lease | None:
        """The lease of a key; `None` while somebody else holds it.

        Raises:
            OSError: nothing can be written into the store.
        """
        make_folder(self.folder)
        lock_file = self.folder / f"{key}.lock"
        locked = _locked(lock_file)
        if locked is None:
            return None
        lock, by_kernel = locked
        file = None
        try:
            file = self._take(lock_file, by_kernel)
        finally:
            if file is None:
                lock.close()
        if file is None:
            return None
        lease = Lease(*file, lock, lock_file)
        with self._guard:
            self._held.add(lease)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, daemon=True).start()
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
            with contextlib.suppress(OSError):
                if file.name.startswith("."):
                    if time.time() - file.stat().st_mtime > SILENCE:
                        file.unlink()
                    continue
                with self.held(file.stem):
                    pass

    def holder(self, key: str) -> str:
        """Who holds a key, for a message; empty if nobody does or it is not known."""
        number, file = _top(_generations(self.folder / f"{key}.lock"))
        stated = _read(file) if number else {}
        return f"process {stated['process']} on {stated['host']}" if {"process", "host"} <= stated.keys() else ""

    def _take(self, lock_file: Path, by_kernel: bool) -> tuple[Path, str] | None:
        """A lease file of our own as the highest; `None` if the holder of the present one may live."""
        number, present = _top(_generations(lock_file))
        if number and not self._is_dead(present, lock_file, by_kernel):
            return None
        token = secrets.token_hex(16)
        file = lock_file.with_suffix(f".{number + 1}")
        stated = {"token": token, "locks": _locks(self.folder), "host": socket.gethostname(), "process": os.getpid()}
        if not _create(file, json.dumps({**stated, "machine": _machine()}).encode()):
            return None  # another machine was quicker
        generations = _generations(lock_file)
        if _top(generations)[1] != file:
            file.unlink(missing_ok=True)
            return None
        for older in generations.values():
            if older != file:
                older.unlink(missing_ok=True)
        return file, token

    def _is_dead(self, file: Path, lock_file: Path, by_kernel: bool) -> bool:
        """Whether the holder of a lease file has ended.

        If its locks are seen here, the lock that we have got says so. Else silence does.
        """
        try:
            touched = file.stat().st_mtime_ns
            os.utime(lock_file)
            age = (lock_file.stat().st_mtime_ns - touched) / 1e9  # by the clock of the file system
        except FileNotFoundError:
            return False  # it has just been released; ask again
        stated = _read(file)
        if by_kernel and stated.get("locks") == _locks(self.folder):
            return True
        # After a restart of this machine the clock is that of the holder.
        if age > (SILENCE if stated.get("machine") == _machine() else LONG_SILENCE):
            return True
        seen, shown = self._seen.get(file), (stated.get("token"), touched)
        if seen is None or seen[0] != shown:
            self._seen[file] = (shown, time.monotonic())
            return False
        return time.monotonic() - seen[1] > SILENCE

    def _beat(self) -> None:
        while self._beating:
            time.sleep(BEAT)
            self._beat_once()

    def _beat_once(self) -> None:
        """Beat for every lease. It is a function of its own, so that nothing refers to a lease between two beats."""
        with self._guard:
            held = list(self._held)
            self._beating = bool(held)
        for lease in held:
            with contextlib.suppress(OSError):
                lease.beat()


def _locked(file: Path) -> tuple[FileIO, bool] | None:
    """A lock file that this process has locked, and whether the kernel keeps the lock; `None` if somebody else has it."""
    while True:
        opened = FileIO(os.open(file, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        by_kernel = True
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.close()
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                opened.close()
                raise
            by_kernel = False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                return opened, by_kernel
        opened.close()  # its holder removed it between our two calls


def _create(file: Path, content: bytes) -> bool:
    """Create a file that is whole as soon as it is there; false if there is one."""
    part = file.with_name(f".{secrets.token_hex(8)}")
    try:
        part.write_bytes(content)
        os.link(part, file)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_in_place(file, content)
    finally:
        part.unlink(missing_ok=True)
    return True


def _create_in_place(file: Path, content: bytes) -> bool:
    try:
        with file.open("xb", buffering=0) as opened:
            opened.write(content)
    except FileExistsError:
        return False
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return True


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
    """What a lease file says; nothing if it is gone or damaged."""
    try:
        stated = read_json(file, LONGEST)
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _locks(folder: Path) -> str:
    """What two processes have in common if each sees the other's locks: the running kernel, and the mounted file system."""
    return f"{kernel()} {folder.stat().st_dev}"


@functools.cache
def kernel() -> str:
    """What tells running kernels apart, the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return _machine()


@functools.cache
def _machine() -> str:
    """What tells machines apart, the same after a restart."""
    try:
        known = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        known = f"{uuid.getnode():x}"
    return f"{socket.gethostname()} {known}"
