"""Times are measured alone: while one run of this user measures, no other computes on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from compresslab.pins import cache_folder


@contextlib.contextmanager
def machine_share(*, alone: bool, waits: Callable[[], object]) -> Iterator[None]:
    """This machine, for the time of a `with` block: `alone`, or together with other runs that do not measure times.

    Two lock files in the user's cache make it fair. Whoever waits for the machine alone holds the first, which everybody passes on the way
    to the second, so the runs that compute end their nodes and start no others. Without a cache or without locks nobody waits.

    Args:
        waits: called once if the machine is not free at once.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            gate, share = (stack.enter_context(_opened(cache_folder() / f"{name}.lock")) for name in ("machine-gate", "machine-share"))
            for file in (gate, share):
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    waits()
                    fcntl.flock(file, kind)
            if not alone:
                fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
