"""Signals that end a command: SIGTERM and SIGHUP end it as Ctrl-C does, and further ones do not disturb the tidying up, up to the third."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

from compresslab.children import ENDING

# Signals within so many seconds of the last one that counted are of one cause: `timeout` and a terminal that closes send two.
OF_ONE_CAUSE = 0.3


class Interrupts:
    """A context in which these signals raise `KeyboardInterrupt`.

    The first one raises it. The second one ends the patience with the workers, and lets the rest of the tidying up go on. If there is none,
    because somebody's code has caught the first interruption and gone on, it raises it again. The third one ends the process at once.
    A signal that is ignored when the command starts stays ignored (`nohup`, commands that a script runs in the background).

    Attributes:
        received: the first signal that came, 0 without one.
        unwound: whether the command is over, so that nothing is left to interrupt.
    """

    def __init__(self) -> None:
        self.received = 0
        self.unwound = False
        self._count, self._last = 0, -math.inf
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for signum in ENDING:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.unwound = True
        if not self.received:  # else the process is about to end and must not be disturbed until then
            for signum, handler in self._before.items():
                signal.signal(signum, handler)  # type: ignore[arg-type]  # one that `signal.signal` has returned

    @property
    def exit_code(self) -> int:
        """The exit code of a process that the received signal ended, as shells count."""
        return 128 + self.received

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if time.monotonic() - self._last < OF_ONE_CAUSE:
            return
        self._last = time.monotonic()
        self._count += 1
        self.received = self.received or signum
        # Not imported here: a command without workers has none to end.
        processes = sys.modules.get("compresslab.runner.processes")
        if self._count == 1:
            raise KeyboardInterrupt
        if self._count == 2:
            if processes is not None:
                processes.hurry()
            if not self.unwound and not _is_interrupted():
                raise KeyboardInterrupt
            return
        try:
            if processes is not None:
                processes.kill_all()
        finally:
            os._exit(self.exit_code)


def _is_interrupted() -> bool:
    """Whether an interruption is on its way: a `finally` or an `except` block runs because of it."""
    seen: set[int] = set()
    link = sys.exception()
    while link is not None and id(link) not in seen:
        if isinstance(link, KeyboardInterrupt):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False
