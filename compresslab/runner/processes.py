"""Worker processes: one node a process, so that whatever kills it (the kernel included) kills nothing else.

The fork server (`runner.server`) starts them. A worker may start processes of its own; they end with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, assert_never

from compresslab.errors import RunFailed, disk_trouble
from compresslab.models.progress import Amount
from compresslab.runner import endings
from compresslab.runner.messages import Done, Failed, Job, Progressed, Report, Scored
from compresslab.runner.server import Ended, Refused, Started, kill_remains
from compresslab.runner.worker import explained, work

# Where the tensors are not the same bit for bit (a format that unpacks otherwise), the logits must be, to float32 rounding.
LARGEST_RELOAD_DIFFERENCE = 1e-3
# Seconds that a worker gets to end by itself: when it has said how it ended, and when the run is interrupted, in which it may save how
# far its training has come.
TO_END, TO_SAVE = 5, 15
# Seconds in which a worker that was killed is gone, unless it waits for a device or a network disk.
TO_DIE = 10
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


# Threads of one program start the server one after the other.
STARTING = threading.Lock()
# What the fork server imports before it forks; the tests add to it.
PRELOAD = ["compresslab.runner.preload"]
# The server's program. Its arguments are the path of this process's imports and the arguments of `runner.server.main`.
PROGRAM = "import json, sys; sys.path[:], *given = json.loads(sys.argv[1]); from compresslab.runner.server import main; main(*given)"


class Listener:
    """What a caller may want to hear while a worker runs. The default hears nothing."""

    def started(self, pid: int) -> None:
        """The worker's process id."""

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        """The share done in [0, 1], what is going on, and the amount behind the share where it is known."""


class ForkServer:
    """The process from which workers are forked, with the heavy libraries imported once.

    What the libraries print while it imports them, and while it forks, goes to `log`.
    """

    def __init__(self, log: Path) -> None:
        self.log, self.owner = log, os.getpid()
        self.ready = False  # it has imported what it is to import
        self.folder = Path(tempfile.gettempdir()) / f"compresslab-{secrets.token_hex(4)}"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.known = endings.before(log)
        self.requests, theirs = socket.socketpair()
        given = json.dumps([sys.path, theirs.fileno(), os.getpid(), str(self.folder), PRELOAD])
        with theirs, log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, given],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT | os.environ,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # what the terminal sends to the run's processes is for the run to pass on
            )
        atexit.register(self.close)

    def usable(self) -> bool:
        """Whether this process started it and it runs."""
        return self.owner == os.getpid() and self.process.poll() is None

    def request(self, pipe: Connection, channel: Connection) -> None:
        """Ask for a worker with these ends of its pipe and of its channel."""
        socket.send_fds(self.requests, [b"w"], [pipe.fileno(), channel.fileno()])

    def why_it_ended(self) -> str:
        """Why the server is gone."""
        return endings.why_it_ended(self.process.wait(), self.known, "the process that starts the workers")

    def close(self) -> None:
        """End the server and its workers, and wait until they are gone."""
        atexit.unregister(self.close)
        self.requests.close()
        if self.owner != os.getpid():
            return
        if not self.ready:  # it has no worker, and would import to the end
            self.process.kill()
        try:
            self.process.wait(TO_DIE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_servers: list[ForkServer] = []  # at most one


def fork_server(log: Path) -> ForkServer:
    """The fork server of this process, started if there is none."""
    with STARTING:
        if _servers and not _servers[0].usable():
            _servers.pop().close()
        if not _servers:
            _servers.append(ForkServer(log))
        return _servers[0]


class ServerGoneError(RunFailed):
    """The fork server ended before a worker ran; the text says why."""


class Worker:
    """A worker process that runs `function(job, pipe)`.

    Raises:
        ServerGoneError: the fork server died. OSError: the system lets no process start.
    """

    def __init__(self, log: Path, function: Callable[[Any, Connection], None], job: Any) -> None:
        self.server = fork_server(log)
        self.pipe, theirs = Pipe()
        self.channel, channel = Pipe()
        self.pid = 0
        self.code: int | None = None
        self.gone = False
        try:
            with theirs, channel:
                answer = self._ask(theirs, channel)
            if isinstance(answer, Refused):
                raise OSError(answer.why)
            self.pid = answer.pid
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already; the channel tells why
                self.pipe.send((sys.path, Path.cwd()))
                self.pipe.send((function, job))
        except BaseException:
            if self.pid:
                self.finish(0)
            self._close()  # which ends one that is still to start
            raise
        _running.add(self)

    def _ask(self, pipe: Connection, channel: Connection) -> Started | Refused:
        try:
            self.server.request(pipe, channel)
            pipe.close()
            channel.close()
            answer: Started | Refused = self.channel.recv()
            self.server.ready = True
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise ServerGoneError(self.server.why_it_ended()) from error
        return answer

    def reports(self) -> bool:
        """Wait for a report or the worker's end; whether there is a report."""
        return self.pipe in wait([self.pipe, self.channel])

    def send_signal(self, signum: int) -> None:
        """Let the server send a signal to the worker, if that runs."""
        with contextlib.suppress(OSError):
            self.channel.send(signum)

    def wait(self, seconds: float) -> bool:
        """Wait until the worker and what it started are gone; whether they are."""
        if not self.gone and self.channel.poll(seconds):
            self.gone = True
            try:
                answer = self.channel.recv()
                assert isinstance(answer, Ended)
                self.code = answer.code
            except (EOFError, OSError):
                kill_remains(self.pid, self.server.folder)
        return self.gone

    def finish(self, patience: float) -> None:
        """Give the worker `patience` seconds to end by itself, then end it. An interruption ends the patience."""
        try:
            self.wait(patience)
        finally:
            self.send_signal(signal.SIGKILL)
            self.wait(TO_DIE)
            _running.discard(self)
            self._close()

    def _close(self) -> None:
        self.pipe.close()
        self.channel.close()


_running: set[Worker] = set()


def hurry() -> None:
    """End the patience with all workers: what they have not saved by now is lost. The store stays whole."""
    for worker in list(_running):
        worker.send_signal(signal.SIGKILL)


def execute(job: Job, listener: Listener, scored: Callable[[str], None] = lambda _: None) -> Done | Failed:
    """Run one task in a worker process of its own and wait for it.

    Args:
        scored: called for each task of an evaluation as soon as its scores are staged.

    Raises:
        KeyboardInterrupt: after the worker is gone.
    """
    known = endings.before(_servers_log(job), job.log)
    try:
        worker = _start(job)
    except ServerGoneError as error:
        return Failed(disk_trouble(error, job.log.parent) or str(error))
    except OSError as error:
        return Failed(disk_trouble(error, job.log.parent) or f"no process could be started for it: {error}")
    patience: float = TO_END
    try:
        listener.started(worker.pid)
        report = _last_report(worker, job.log, listener, scored)
    except KeyboardInterrupt:
        # The terminal interrupts its own session, which a worker has left.
        patience = TO_SAVE
        worker.send_signal(signal.SIGINT)
        raise
    finally:
        # At whatever moment the interruption came, nobody must go on writing.
        worker.finish(patience)
    if report is not None:
        return report
    return Failed(worker.server.why_it_ended() if worker.code is None else endings.why_it_ended(worker.code, known))


def _start(job: Job) -> Worker:
    """Start the job's worker, from a new server if the first one dies."""
    try:
        return Worker(_servers_log(job), work, job)
    except ServerGoneError:
        return Worker(_servers_log(job), work, job)


def _servers_log(job: Job) -> Path:
    return job.log.with_name("workers.log")


def _last_report(worker: Worker, log: Path, listener: Listener, scored: Callable[[str], None]) -> Done | Failed | None:
    """Hear a worker's reports until it has ended; its last one, if it gave one."""
    while worker.reports():
        try:
            report: Report = worker.pipe.recv()
        except (EOFError, OSError):
            break
        match report:
            case Progressed():
                listener.progress(*report)
            case Scored(task):
                try:
                    scored(task)
                except OSError as error:
                    return Failed(explained(error, log))
            case Done() | Failed():
                return report
            case _:
                assert_never(report)
    worker.wait(TO_END)
    return None
