"""Whether programs that a model wrote pass their tests."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation.sandbox import bubblewrap
from compresslab.evaluation.sandbox.supervisor import FAILED, KILLED, PASSED, STARTED

UNCONFINED = " (programs ran without a sandbox)"  # added to the metric's name
SECONDS = 10.0
PATIENCE = 60.0  # seconds that a sandbox may take beyond its program, on a machine that is busy
TRUST = "--trust-code runs programs without a sandbox: they can read and write your files, use the network and leave processes behind"
VMSTAT, OWN_GROUP, GROUPS = Path("/proc/vmstat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Fails unless the limit of processes holds.
FORKS = f"""
import os, time
for number in range({bubblewrap.PROCESSES}):
    try:
        if os.fork() == 0:
            time.sleep(60)
    except BlockingIOError:
        break
else:
    raise AssertionError
"""
# Programs whose verdicts are known, what each shows, and whether it passes.
CONTROLS = (
    ("assert 1 + 1 == 2", "a right program does not pass", True),
    ("assert 1 + 1 == 3", "a wrong program passes", False),
    (FORKS, "the number of processes is not limited: root cannot become another user; run as a normal user", True),
)


def passes(program: str, seconds: float = SECONDS, *, trusted: bool = False) -> bool:
    """Whether a program runs to its end, without an exception and without an early exit.

    Args:
        program: Python's source, with its tests. seconds: of wall time. trusted: run it without a sandbox, with limits only.

    Raises:
        BadInput: this system has no sandbox. RunFailed: the sandbox itself failed; the program may be right or wrong.
    """
    check(trusted)
    return _passes(program, seconds, trusted)


@functools.cache
def check(trusted: bool = False) -> None:
    """Try the sandbox with programs whose verdicts are known, once a process.

    Raises:
        BadInput: it cannot be used here, in a sentence with what to do.
    """
    if trusted:
        return
    if problem := refusal():
        raise BadInput(f"programs that a model wrote cannot be run here: {problem}. {TRUST}")


def refusal() -> str:
    """Why programs cannot be run in a sandbox on this system, and what to do; empty if they can."""
    try:
        return bubblewrap.refusal() or _wrong()
    except RunFailed as failure:  # perhaps only now: the machine may be busy or its memory full
        return str(failure)


@functools.cache
def _wrong() -> str:
    """What the verdicts on the programs whose verdicts are known are wrong in; empty if all are right. Tried once a process."""
    for program, meaning, expected in CONTROLS:
        if _passes(program, SECONDS, trusted=False) is not expected:
            return f"the sandbox is not right here ({meaning})"
    return ""


def _passes(program: str, seconds: float, trusted: bool) -> bool:
    """The verdict on a program. One that fails where it was killed, or while the machine ran short, is run once more.

    Raises:
        RunFailed: the machine was short of memory or processes both times, or the sandbox failed.
    """
    for _ in range(2):
        before = shortages()
        status = _status(program, seconds, trusted)
        short = shortages() != before
        if status == PASSED or (status == FAILED and not short):
            return status == PASSED
    if short:
        raise RunFailed(
            "a program failed twice while the kernel ended processes for lack of memory, or refused new ones to this control group "
            "(oom_kill in /proc/vmstat, pids.events); whether it is right is not known. Free memory or raise the limit, and run again"
        )
    return False  # it killed itself both times


def shortages() -> tuple[str, ...]:
    """The kernel's counters of processes that it killed for lack of memory, and that it refused to this control group and those above."""
    found = []
    with contextlib.suppress(OSError):
        found += [line for line in VMSTAT.read_text().splitlines() if line.startswith("oom_kill ")]
    with contextlib.suppress(OSError):
        own = next((line.removeprefix("0::/") for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::/")), "")
        for group in (GROUPS / own, *(GROUPS / own).parents):
            if (events := group / "pids.events").is_file():
                found.append(events.read_text())
    return tuple(found)


def _status(program: str, seconds: float, trusted: bool) -> int:
    try:
        ended = (_trusted if trusted else bubblewrap.run)(program.encode(errors="surrogatepass"), seconds, PATIENCE)
    except subprocess.TimeoutExpired as stuck:
        if STARTED in (stuck.stderr or b""):
            return FAILED  # the program has kept its supervisor from its work
        raise RunFailed(f"the sandbox did not end within {stuck.timeout:.0f} s") from stuck
    except OSError as error:
        raise RunFailed(f"the sandbox cannot be started ({error})") from error
    if ended.status not in (PASSED, FAILED, KILLED):
        raise RunFailed(_why(ended))
    return ended.status


def _trusted(program: bytes, seconds: float, patience: float) -> bubblewrap.Ended:
    """Run a program under its supervisor without a sandbox, in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="compresslab-program-", ignore_cleanup_errors=True) as folder:
        limits = [str(seconds), str(bubblewrap.MEMORY), "0", "0"]
        command = [sys.executable, "-I", "-B", str(bubblewrap.SUPERVISOR), *limits]
        return bubblewrap.start(command, program, seconds + patience, folder=folder)


def _why(ended: bubblewrap.Ended) -> str:
    """What a sandbox that failed said, and what to do about it."""
    last = (ended.said.splitlines() or [f"exit status {ended.status}"])[-1]
    if any(word in ended.said.lower() for word in ("namespace", "uid map", "operation not permitted", "mount proc", "rtm_newaddr")):
        return f"bubblewrap may not isolate programs ({last}); {bubblewrap.ALLOW}"
    if "Permission denied" in ended.said or "execvp" in ended.said or "No module named" in ended.said:
        folders = ", ".join(map(str, bubblewrap.interpreter_folders())) or sys.prefix
        return f"the interpreter cannot be used in the sandbox ({last}); let every user read {folders}, or use another environment"
    return f"the sandbox failed ({last})"
