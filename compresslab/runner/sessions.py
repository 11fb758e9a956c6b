"""Worker processes as leaders of sessions, so that a worker's end is the end of every process that it started.

A session and not a process group: whoever makes a group of its own leaves the old one, as the sandbox of programs does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import psutil

# Leaders that this process has started and not yet seen the end of.
_started: set[int] = set()


def lead(pipe: Connection) -> None:
    """Make this process the leader of a session, which ends as soon as the other end of `pipe` is closed: its parent is gone.

    A thread waits for that, because a parent that is killed closes its pipes on every system and can do nothing else. Nothing is ever
    read from the pipe, so it may be written to meanwhile.
    """
    os.setsid()
    # Only the parent interrupts a session of its own. A shell that starts a run in the background has SIGINT ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_until_closed, args=(pipe,), daemon=True).start()


def _until_closed(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()
    end_session(os.getpid())


def started(process: BaseProcess) -> int:
    """Note that a leader runs, so that it ends with this process at the latest; gives its process id."""
    assert process.pid is not None
    _started.add(process.pid)
    return process.pid


def finish(process: BaseProcess, patience: float) -> None:
    """Give a leader `patience` seconds to end by itself, then end whatever is left of its session. An interruption ends the patience."""
    if process.pid is None:
        return
    try:
        process.join(patience)
    finally:
        process.kill()  # it may not lead a session yet
        end_session(process.pid)
        process.join()
        _started.discard(process.pid)


def end_session(leader: int) -> None:
    """Kill every process of a session, the leader last: its id stands for the session as long as one of its processes lives."""
    for _ in range(2):  # what started during the first look is met by the second
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid != leader and os.getsid(pid) == leader:
                    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@atexit.register
def _end_all() -> None:
    for leader in list(_started):
        end_session(leader)
