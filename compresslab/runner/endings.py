"""Why a worker ended: what an exception means, and without a report what the signal, the kernel's counters and its log tell."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Literal, NamedTuple

from compresslab import children
from compresslab.errors import disk_trouble, out_of_memory
from compresslab.machine import control_groups

KERNEL_COUNTERS = Path("/proc/vmstat")
AGAIN = "Run again to go on from here"
MEMORY_WORDS = ("bad_alloc", "allocat", "out of memory", "not enough memory")
# Signals by which the processor or the library itself ends a process.
CRASHES = {"SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}


class Kills(NamedTuple):
    """What the kernel has counted of memory that ran out; `None` where that cannot be read.

    Attributes:
        group: processes of this process's control group that it killed for it, whoever's memory ran out.
        limit: how often the memory of that group, or of one above it, reached its limit and nothing could be freed. Version 1 has no such
            counter.
        system: processes of the whole system that it killed. In a container, that is the host.
    """

    group: int | None
    limit: int | None
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


def explained(error: BaseException, log: Path, device: str = "cpu") -> str:
    """One clear sentence for an exception of somebody else's code while something was computed on `device`."""
    text = " ".join(str(error).split())
    if full := disk_trouble(error, log.parent.parent):
        return full
    if isinstance(error, SystemExit):
        return f"a library ended its process (SystemExit: {text[:200]}; the traceback is in {log})"
    # The class has no importable home: every library that is written in Rust makes its own.
    if type(error).__name__ == "PanicException":
        return f"a native library panicked: {text[:400]} (the traceback is in {log}); it cannot work with what it was given"
    if out_of_memory(error):
        where = "" if device == "cpu" else f" on {device}"
        else_cpu = "" if device == "cpu" else ", and --device cpu has the machine's own memory"
        return (
            f"not enough memory{where}: {text[:200]}. A smaller batch, fewer tokens a micro-batch or a smaller model needs less{else_cpu}"
        )
    # What torch raises for an operation without a kernel there, and MPS for float64.
    if device != "cpu" and (isinstance(error, NotImplementedError) or (isinstance(error, TypeError) and "MPS" in text)):
        return f"{device} has no kernel for an operation of this node: {text[:200]}. Run it with --device cpu"
    if device != "cpu" and type(error).__name__ == "AcceleratorError":
        return (
            f"{device} failed while it computed: {text[:200]}. Look at its driver (`compresslab doctor`), then run again to go on from here"
        )
    return f"{type(error).__name__}: {text[:400]} (the traceback is in {log})"


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


def kind_of_end(code: int, known: Before) -> Literal["", "memory", "lost"]:
    """Whether a process that ended without a report lacked memory, or was killed from outside, so that another try may succeed.

    Args:
        code: as in `why_it_ended`.
    """
    name = signal.Signals(-code).name if -code in set(signal.Signals) else ""
    if name == "SIGKILL":
        earlier, now = known.kills, kernel_kills()
        counted = now.group is not None or now.system is not None
        return "lost" if counted and not (_rose(earlier.group, now.group) or _rose(earlier.system, now.system)) else "memory"
    if name in CRASHES:
        said = (last_line(log, size) for log, size in known.logs.items())
        return "memory" if any(word in line.lower() for line in said for word in MEMORY_WORDS) else ""
    return "lost" if name in ("SIGTERM", "SIGHUP", "SIGINT") else ""


def _memory(earlier: Kills, now: Kills) -> str:
    """What the kernel says about a SIGKILL.

    The counter of kills in the group counts this process, unless another one of the group was killed at the same time. The system's counts
    processes that have nothing to do with it, too.
    """
    need_less = "close other programs, or use a smaller model"
    if _rose(earlier.group, now.group):
        if _rose(earlier.limit, now.limit):
            return f": the kernel did it because the memory of its control group ran out; raise that limit, {need_less}"
        if now.limit is not None:
            return f": the kernel did it because the machine's memory ran out; {need_less}"
        return f": the kernel did it because memory ran out, the machine's or that of its control group; raise that limit, {need_less}"
    if _rose(earlier.system, now.system):
        return f"; the kernel killed a process for lack of memory meanwhile, possibly this one: {need_less}"
    if now.group is not None or now.system is not None:
        return "; it was not the kernel for lack of memory, so another program or a person did it"
    return f"; the system does that when memory runs out: {need_less}"


def _rose(earlier: int | None, now: int | None) -> bool:
    return earlier is not None and now is not None and now > earlier


def kernel_kills() -> Kills:
    """The kernel's counters of memory that ran out: of control groups (version 2 or 1), and of the system."""
    return Kills(*_of_group(), _counter(KERNEL_COUNTERS, "oom_kill"))


def _of_group() -> tuple[int | None, int | None]:
    """Kills in this process's control group, and how often its limits and those of the groups above it were reached."""
    groups = control_groups.control_groups("memory")
    kills = (_counter(folder / name, "oom_kill") for folder in groups for name in ("memory.events", "memory.oom_control"))
    limits = [limit for folder in groups if (limit := _counter(folder / "memory.events", "oom")) is not None]
    return next((count for count in kills if count is not None), None), sum(limits) if limits else None


def _counter(file: Path, name: str) -> int | None:
    """The value of a line `name value`."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def last_line(log: Path, start: int = 0) -> str:
    """The last line of a log that tells something (`children.last_line`), from the byte `start` on; "" without one."""
    try:
        with log.open("rb") as file:
            return children.last_line(file, start)
    except OSError:
        return ""
