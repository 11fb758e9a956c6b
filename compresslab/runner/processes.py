"""Worker processes: one node a process, so that whatever kills it (the kernel included) kills nothing else.

A worker may start processes of its own; they end with it (`runner.sessions`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import assert_never

from compresslab.models.progress import Amount
from compresslab.runner import sessions
from compresslab.runner.messages import Done, Failed, Job, Progressed, Report, Scored
from compresslab.runner.worker import work

# Where the tensors are not the same bit for bit (a format that unpacks otherwise), the logits must be, to float32 rounding.
LARGEST_RELOAD_DIFFERENCE = 1e-3
# Seconds that a worker gets to end by itself: when it has said how it ended, and when the run is interrupted, in which it may save how
# far its training has come.
TO_END, TO_SAVE = 5, 15
# What a process that computes should find in its environment before it imports torch, unless the user has set it.
ENVIRONMENT = {
    # Threads that wait for one another by spinning take the processor from whoever they wait for as soon as anything
    # else runs: on two busy cores a forward pass took twice as long as with threads that sleep, on idle ones 5% less.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors on huge pages. Each is memory that the system has just cleared, 4 kB at a time otherwise: five million page faults in
    # six training steps of 2,048 tokens, a fifth of their time.
    "THP_MEM_ALLOC_ENABLE": "1",
    # And kept when it is free again, for the next tensor, where glibc would give it back to the system and ask for it anew: a norm over
    # 1,024 tokens took 1.2 ms instead of 2.3 at best, with a sixteenth of the page faults.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


# Threads of one program start the server one after the other: it inherits what is the whole process's.
STARTING = threading.Lock()
# What the fork server imports before it forks; the tests add to it.
PRELOAD = ["compresslab.runner.preload"]


class Listener:
    """What a caller may want to hear while a worker runs. The default hears nothing."""

    def started(self, pid: int) -> None:
        """The worker's process id."""

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        """The share done in [0, 1], what is going on, and the amount behind the share where it is known."""


def context(log: Path) -> ForkServerContext:
    """A fork server with the heavy libraries imported once; it computes nothing itself, so forking it is safe.

    What the libraries print while it imports them, and while it forks, goes to `log`.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    with STARTING, _stderr_to(log), _environment(ENVIRONMENT):
        forkserver.ensure_running()
    return server


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes started here inherit these variables where the user has not set them. The caller's environment is the same after it."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Let processes started here inherit `log` as their standard error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def execute(job: Job, listener: Listener, scored: Callable[[str], None] = lambda _: None) -> Done | Failed:
    """Run one task in a worker process of its own and wait for it.

    Args:
        scored: called for each task of an evaluation as soon as its scores are staged.

    Raises:
        KeyboardInterrupt: after the worker is gone.
    """
    server = context(job.log.with_name("workers.log"))
    ours, theirs = server.Pipe()  # both ways, so that the worker notices when this end closes
    # Not a daemon, which may start no processes.
    process = server.Process(target=work, args=(job, theirs), daemon=False)
    patience = TO_END
    try:
        process.start()
        theirs.close()
        listener.started(sessions.started(process))
        return _last_report(process, ours, listener, scored)
    except KeyboardInterrupt:
        # The terminal interrupts its own session, which a worker has left.
        patience = TO_SAVE
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        raise
    finally:
        # Also what a worker that has ended left behind; and at whatever moment the interruption came, nobody must go on writing.
        sessions.finish(process, patience)
        ours.close()


def _last_report(process: ForkServerProcess, pipe: Connection, listener: Listener, scored: Callable[[str], None]) -> Done | Failed:
    """Hear a worker's reports until it has ended."""
    while True:
        # A process that it started may hold its end of the pipe open, so its death is looked for, too.
        if pipe not in wait([pipe, process.sentinel]):
            break
        try:
            report: Report = pipe.recv()
        except (EOFError, ConnectionResetError):
            break
        match report:
            case Progressed():
                listener.progress(*report)
            case Scored(task):
                scored(task)
            case Done() | Failed():
                return report
            case _:
                assert_never(report)
    process.join(TO_END)
    return Failed(_died(process.exitcode))


def _died(code: int | None) -> str:
    """Why a process ended without a word."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        often = "; the system does that when memory runs out: close other programs, or use a smaller model" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{often}. Run again to go on from here"
    return f"its process ended without a word (exit code {code}). Run again to go on from here"
