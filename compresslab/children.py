"""Processes of this interpreter that run code of this package: their command, the signals that end them, and what they said last."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import IO

# Signals that end a command, as far as the system has them. One that is sent to all processes of a job reaches a worker twice: from its
# sender and from the command.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# The end of an output that is read, in bytes, and how much of its last line is told.
TAIL, TOLD = 2**14, 200
# Where a trace of the interpreter begins, which follows what the library said (`faulthandler`).
TRACE = "Fatal Python error: "


def python(program: str, *given: object) -> list[str]:
    """The command of a Python process that runs `program`, in which `given` are these values.

    The process imports from where this one does. `-P` keeps the working directory out of its path, so that no file there is taken for a
    module, unless this process imports from there itself.

    Args:
        given: values that JSON has.
    """
    path = [entry for entry in sys.path if isinstance(entry, str)]  # the import system passes over all else
    start = "import json, sys; sys.path[:], *given = json.loads(sys.argv[1]); "
    return [sys.executable, "-P", "-c", start + program, json.dumps([path, *given])]


def last_line(output: IO[bytes], start: int = 0) -> str:
    """The last line of a process's output that tells something, from the byte `start` on; "" without one.

    Before a trace of the interpreter, that is what the library said. If it said nothing, it is the first line of the trace.
    """
    output.seek(max(start, output.seek(0, 2) - TAIL))
    text = output.read(TAIL).decode(errors="replace")
    lines = [line for line in map(_clean, re.split(r"[\r\n]+", text)) if line]
    crash = next((place for place, line in enumerate(lines) if line.startswith(TRACE)), None)
    if crash is not None:
        lines = lines[: max(crash, 1)]
    return lines[-1][:TOLD] if lines else ""


def _clean(line: str) -> str:
    """A line without control characters, which a terminal would obey."""
    return "".join(letter for letter in line if letter.isprintable()).strip()
