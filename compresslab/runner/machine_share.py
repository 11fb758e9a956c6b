"""Times are measured alone: while one run of this user measures, no other starts to compute on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from compresslab.pins import cache_folder
from compresslab.store.leases import kernel


@contextlib.contextmanager
def machine_share(*, alone: bool) -> Iterator[bool]:
    """This machine, for the time of a `with` block: `alone`, or together with other runs that do not measure times.

    False while it cannot be had. A run that waits to measure keeps nobody from computing. The lock is in the user's cache, which containers
    have each for themselves; without a cache or without locks nobody waits.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            # A home may be on several machines, and so may its locks.
            lock = os.open(folder / f"machine-{kernel().split()[-1]}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True
