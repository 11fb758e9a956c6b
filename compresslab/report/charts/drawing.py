"""Draws charts in a process of its own, because the library that draws them is native code, and what kills it must not kill a run.

That process runs `main`. It draws the specifications that come through its socket until the other end closes.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import IO, Any, Self

from compresslab.children import last_line, python

PROGRAM = f"from {__name__} import main; main(*given)"
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
        self._said: IO[bytes] | None = None  # what it prints
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
        late = threading.Event()
        try:
            if self._pipe is None:
                self._pipe = self._start()
            kind, text = self._asked(self._pipe, chart, late)
        except (OSError, EOFError) as error:
            how = self._how_it_ended()
            if late.is_set():
                how = f"the chart library gave no answer within {TIMEOUT} s"
            self._why = how or f"the process of the chart library could not work ({error})"
            raise NotDrawnError(self._why) from error
        if kind != "svg":
            raise NotDrawnError(text)
        self._fruitless = 0
        return str(text)

    def _asked(self, pipe: Connection, chart: dict[str, Any], late: threading.Event) -> tuple[str, str]:
        """The answer of the process, which is killed and sets `late` if it takes too long to read the question, to draw, or to answer."""
        process = self._process
        assert process is not None

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(TIMEOUT, kill)
        timer.daemon = True
        timer.start()
        try:
            pipe.send_bytes(json.dumps(chart).encode())
            kind, text = json.loads(pipe.recv_bytes())
        finally:
            timer.cancel()
        return kind, text

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        self._fruitless += 1
        with theirs:
            with contextlib.suppress(OSError):  # without a temporary folder, nobody learns what it said
                self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `_end`
            self._process = subprocess.Popen(
                python(PROGRAM, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said or subprocess.DEVNULL,  # a native library that crashes prints a page
                pass_fds=(theirs.fileno(),),
            )
        return ours

    def _how_it_ended(self) -> str:
        """How a process that is gone ended; "" if there was none."""
        with self._said or contextlib.nullcontext() as said:
            self._said = None
            code = self._end()
            line = last_line(said) if said is not None else ""
        if code is None:
            return ""
        by = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        return f"the process of the chart library ended ({by}){f'. It said: {line}' if line else '; memory may have been short'}"

    def _end(self) -> int | None:
        """End the process; its exit code if it had ended by itself before."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._said is not None:
            self._said.close()
            self._said = None
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def main(descriptor: int) -> None:
    """Draw what comes through the socket with this descriptor until its other end closes."""
    pipe = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts the command, which closes the pipe
    from compresslab.report.charts.text_marks import TextMarkRenderer  # loads native code

    renderer = TextMarkRenderer()
    while True:
        try:
            chart = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            answer = ("svg", renderer.svg(chart))
        except BaseException as error:  # a panic of native code, too
            answer = ("error", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        pipe.send_bytes(json.dumps(answer).encode())
