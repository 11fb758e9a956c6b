"""Draws charts in a process of its own, because the library that draws them is native code, and what kills it must not kill a run.

`python -m compresslab.report.charts.drawing DESCRIPTOR` is that process. It draws the specifications that come through its socket until the
other end closes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Self

# Seconds for one chart, which takes hundredths; the first one waits for the library to be loaded, maybe from a network disk.
TIMEOUT = 120
# After so many processes that ended before they had drawn anything, no other one is tried.
TRIES = 2


class NotDrawnError(Exception):
    """A chart could not be drawn. The text says why."""


class Drawing:
    """A context with a process that draws charts. It starts with the first chart, and again after one that has killed it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._fruitless = 0
        self._why = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def svg(self, chart: dict[str, Any]) -> str:
        """A Vega-Lite specification as SVG.

        Raises:
            NotDrawnError: the specification is wrong, or the process ended or gave no answer.
        """
        if self._fruitless >= TRIES:
            raise NotDrawnError(self._why)
        try:
            if self._pipe is None:
                self._pipe = self._start()
            self._pipe.send_bytes(json.dumps(chart).encode())
            if not self._pipe.poll(TIMEOUT):
                self._end()
                self._why = f"the chart library gave no answer within {TIMEOUT} s"
                raise NotDrawnError(self._why)
            kind, text = json.loads(self._pipe.recv_bytes())
        except (OSError, EOFError) as error:
            self._why = self._how_it_ended() or f"the process of the chart library could not work ({error})"
            raise NotDrawnError(self._why) from error
        if kind != "svg":
            raise NotDrawnError(text)
        self._fruitless = 0
        return str(text)

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        self._fruitless += 1
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a native library that crashes prints a page
                pass_fds=(theirs.fileno(),),
            )
        return ours

    def _how_it_ended(self) -> str:
        """How a process that is gone ended; "" if there was none."""
        code = self._end()
        if code is None:
            return ""
        by = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        return f"the process of the chart library ended ({by}); memory may have been short"

    def _end(self) -> int | None:
        """End the process; its exit code if it had ended by itself before."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def draw_all(pipe: Connection) -> None:
    """Draw what comes through the pipe until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts the command, which closes the pipe
    import vl_convert  # loads native code

    while True:
        try:
            chart = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            answer = ("svg", vl_convert.vegalite_to_svg(chart))
        except BaseException as error:  # a panic of native code, too
            answer = ("error", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        pipe.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    draw_all(Connection(int(sys.argv[1])))
