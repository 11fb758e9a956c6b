"""Whether programs that a model wrote pass their tests."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation.sandbox import bubblewrap
from compresslab.evaluation.sandbox.supervisor import FAILED, PASSED

SECONDS = 10.0
PATIENCE = 60.0  # seconds that a sandbox may take beyond its program, on a machine that is busy
TRUST = "--trust-code runs programs without a sandbox: they can read and write your files, use the network and leave processes behind"
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
    problem = refusal()
    if problem:
        raise BadInput(f"programs that a model wrote cannot be run here: {problem}. {TRUST}")


@functools.cache
def refusal() -> str:
    """Why programs cannot be run in a sandbox on this system, and what to do; empty if they can."""
    if problem := bubblewrap.refusal():
        return problem
    try:
        for program, meaning, expected in CONTROLS:
            if _passes(program, SECONDS, trusted=False) is not expected:
                return f"the sandbox is not right here ({meaning})"
    except RunFailed as failure:
        return str(failure)
    return ""


def _passes(program: str, seconds: float, trusted: bool) -> bool:
    try:
        ended = (_trusted if trusted else bubblewrap.run)(program.encode(errors="surrogatepass"), seconds, PATIENCE)
    except subprocess.TimeoutExpired as stuck:
        raise RunFailed(f"the sandbox did not end within {stuck.timeout:.0f} s") from stuck
    except OSError as error:
        raise RunFailed(f"the sandbox cannot be started ({error})") from error
    if ended.status not in (PASSED, FAILED):
        raise RunFailed(_why(ended))
    return ended.status == PASSED


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
