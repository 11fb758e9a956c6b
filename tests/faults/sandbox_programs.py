"""The programs of `sandbox_programs.txt`: attacks on the sandbox, and honest ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SYSCALL = """import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    number = {"x86_64": x86, "aarch64": arm}[platform.machine()]
    result = libc.syscall(number, *arguments)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
"""
# Ways to stop as the supervisor's own function does, from calls of different depths.
DEPTHS = {
    "partial": "import functools, signal\nstop = functools.partial(signal.raise_signal, 19)",
    "function": "import signal\ndef stop(*_):\n    signal.raise_signal(19)",
    "map": "import signal\ndef stop(*_):\n    next(map(signal.raise_signal, (19,)))",
    "methodcaller": "import operator, signal\ndef stop(*_, call=operator.methodcaller('raise_signal', 19)):\n    call(signal)",
    "list": "import signal\ndef stop(*_):\n    list(map(signal.raise_signal, (19,)))",
    "sorted": "import signal\ndef stop(*_):\n    sorted((19,), key=signal.raise_signal)",
    "partials": "import functools, signal\nstop = functools.partial(functools.partial(functools.partial(signal.raise_signal), 19))",
    "exec": "import signal\ndef stop(*_):\n    exec('import signal; signal.raise_signal(19)')",
}
FORM = re.compile(r"^--- (?P<name>[^\[\n]+?)(?: \[(?P<marks>.*)\])?\n(?P<text>(?:(?!---|===).*\n)*)", re.MULTILINE)


class Program(NamedTuple):
    """One program.

    Attributes:
        section: what kind of attack, or "honest". name: what it tries. text: its source.
        passes: the right verdict. slow: it takes seconds, or fills memory. seconds: its time limit.
    """

    section: str
    name: str
    text: str
    passes: bool
    slow: bool
    seconds: float


def read() -> list[Program]:
    """All programs, in the file's order."""
    found = []
    for part in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("\n=== ")[1:]:
        section = part.partition("\n")[0]
        for match in FORM.finditer(part + "\n"):
            marks = (match["marks"] or "").split(", ")
            limit = next((float(mark.removesuffix(" s")) for mark in marks if mark.endswith(" s")), 5.0)
            text = match["text"].strip("\n").replace("{{syscall}}", SYSCALL).replace("{{no text}}", "\0\ud800") + "\n"
            ways = DEPTHS if "depths" in marks else {"": ""}
            for way, definition in ways.items():
                name = f"{match['name']}: {way}" if way else match["name"]
                found.append(Program(section, name, text.replace("{{depth}}", definition), "pass" in marks, "slow" in marks, limit))
    return found


PROGRAMS = read()
ATTACKS = [program for program in PROGRAMS if program.section != "honest"]
HONEST = [program for program in PROGRAMS if program.section == "honest"]
