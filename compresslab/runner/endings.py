"""Why a worker ended without a report: what the signal, the kernel's counters and the last line of its log tell."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from typing import NamedTuple

CGROUPS, CGROUP_OF_THIS, KERNEL_COUNTERS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/vmstat")
AGAIN = "Run again to go on from here"
# The end of a log that is read, in bytes, and how much of its last line is told.
TAIL, TOLD = 2**14, 200
# Where a trace of the interpreter begins, which follows what the library said (`faulthandler`).
TRACE = "Fatal Python error: "
MEMORY_WORDS = ("bad_alloc", "allocat", "out of memory", "not enough memory")
# Signals by which the processor or the library itself ends a process.
CRASHES = {"SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}


class Kills(NamedTuple):
    """How many processes the kernel has killed because memory ran out; `None` where that cannot be read.

    Attributes:
        group: those of this process's control group. system: those of the whole system.
    """

    group: int | None
    system: int | None


class Before(NamedTuple):
    """What has to be known before a worker starts, to tell why it ended.

    Attributes:
        logs: the files that take what its libraries print, each with its size in bytes. kills: the kernel's counters.
    """

    logs: dict[Path, int]
    kills: Kills


def before(*logs: Path) -> Before:
    """The state before a worker starts. What the last of its logs says counts most."""
    return Before({log: log.stat().st_size if log.is_file() else 0 for log in logs}, kernel_kills())


def why_it_ended(code: int, known: Before, who: str = "its process") -> str:
    """Why a process ended without a report, in one or two sentences.

    Args:
        code: its exit code, or the negative number of the signal that killed it. who: the process, as the sentence names it.
    """
    lines = ((log, last_line(log, size)) for log, size in reversed(known.logs.items()))
    log, said = next(((log, line) for log, line in lines if line), (None, ""))
    quoted = f". The last line of {log}: {said}" if said else ""
    if code >= 0:
        return f"{who} ended without a report (exit code {code}){quoted}. {AGAIN}"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    cause = f"{who} was killed by {name}"
    if name == "SIGKILL":
        return f"{cause}{_memory(known.kills, kernel_kills())}. {AGAIN}"
    if name == "SIGBUS":
        return f"{cause}: a file that it had mapped could not be read or written; its disk may be full{quoted}. {AGAIN}"
    if name in CRASHES:
        if any(word in said.lower() for word in MEMORY_WORDS):
            return f"{cause}: not enough memory{quoted}. A smaller batch, fewer tokens a micro-batch or a smaller model needs less"
        return f"{cause}: a native library crashed{quoted}. {AGAIN}"
    return f"{cause}. {AGAIN}"


def _memory(earlier: Kills, now: Kills) -> str:
    """What the kernel says about a SIGKILL."""
    need_less = "close other programs, or use a smaller model"
    if earlier.group is not None and now.group is not None and now.group > earlier.group:
        return f": the kernel did it because the memory of its control group ran out; raise that limit, {need_less}"
    if earlier.system is not None and now.system is not None:
        if now.system > earlier.system:
            return f": the kernel did it because memory ran out; {need_less}"
        return "; it was not the kernel for lack of memory, so another program or a person did it"
    return f"; the system does that when memory runs out: {need_less}"


def kernel_kills() -> Kills:
    """The kernel's counters of processes that it killed for memory: of control groups (version 2 or 1), and of the system."""
    return Kills(_of_group(), _counter(KERNEL_COUNTERS, "oom_kill"))


def _of_group() -> int | None:
    with contextlib.suppress(OSError):
        for line in CGROUP_OF_THIS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                places = [CGROUPS / path.lstrip("/") / "memory.events", CGROUPS / "memory.events"]
            elif "memory" in controllers.split(","):
                # In a container the path is the host's, and what is mounted is the container's own group.
                places = [CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control", CGROUPS / "memory" / "memory.oom_control"]
            else:
                continue
            for place in places:
                if (found := _counter(place, "oom_kill")) is not None:
                    return found
    return None


def _counter(file: Path, name: str) -> int | None:
    """The value of a line `name value`."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def last_line(log: Path, start: int = 0) -> str:
    """The last line of a log that tells something, from the byte `start` on; "" without one.

    Before a trace of the interpreter, that is what the library said. If it said nothing, it is the first line of the trace.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in map(_clean, re.split(r"[\r\n]+", text)) if line]
    crash = next((place for place, line in enumerate(lines) if line.startswith(TRACE)), None)
    if crash is not None:
        lines = lines[: max(crash, 1)]
    return lines[-1][:TOLD] if lines else ""


def _clean(line: str) -> str:
    """A line without control characters, which a terminal would obey."""
    return "".join(letter for letter in line if letter.isprintable()).strip()
