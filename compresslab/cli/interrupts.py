"""Signals that end a command: SIGTERM and SIGHUP end it as Ctrl-C does, and a second one does not disturb the tidying up."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """A context in which these signals raise `KeyboardInterrupt`.

    The first one raises it. Those after it end the patience with the workers, and let the rest of the tidying up go on.
    A signal that is ignored when the command starts stays ignored (`nohup`, commands that a script runs in the background).

    Attributes:
        received: the first signal that came, 0 without one.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for signum in ENDING:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.received:  # else the process is about to end and must not be disturbed until then
            for signum, handler in self._before.items():
                signal.signal(signum, handler)  # type: ignore[arg-type]  # one that `signal.signal` has returned

    @property
    def exit_code(self) -> int:
        """The exit code of a process that the received signal ended, as shells count."""
        return 128 + self.received

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if not self.received:
            self.received = signum
            raise KeyboardInterrupt
        # Not imported here: a command without workers has none to end.
        if (processes := sys.modules.get("compresslab.runner.processes")) is not None:
            processes.hurry()
