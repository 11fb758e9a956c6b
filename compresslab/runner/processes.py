"""Worker processes: one node a process, so that whatever kills it (the kernel included) kills nothing else.

The fork server (`runner.server`) starts them. A worker may start processes of its own; they end with it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, assert_never
from weakref import WeakSet

from compresslab.errors import disk_trouble
from compresslab.models.progress import Amount
from compresslab.runner import endings
from compresslab.runner.endings import explained
from compresslab.runner.messages import Done, Failed, Job, Progressed, Report, Scored
from compresslab.runner.server import LOOK, TO_SAVE, Ended, Refused, Started, kill_remains
from compresslab.runner.server_process import TO_DIE, ServerGoneError, fork_server
from compresslab.runner.worker import work

# Where the tensors are not the same bit for bit (a format that unpacks otherwise), the logits must be, to float32 rounding.
LARGEST_RELOAD_DIFFERENCE = 1e-3
# Seconds that a worker gets to end by itself when it has said how it ended.
TO_END = 5
# Seconds in which a fork server answers: one that has imported all it needs, and one that imports, maybe from a network disk.
TO_ANSWER, TO_IMPORT = 60, 600


class Listener:
    """What a caller may want to hear while a worker runs. The default hears nothing."""

    def started(self, pid: int) -> None:
        """The worker's process id."""

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        """The share done in [0, 1], what is going on, and the amount behind the share where it is known."""


class Stop:
    """How the thread that signals interrupt lets others stop, which wait for workers and which no signal interrupts.

    Attributes:
        asked: a connection that has something to read as soon as the run is to stop.
    """

    def __init__(self) -> None:
        self.asked, self._end = Pipe(duplex=False)

    def ask(self) -> None:
        """Let every wait for a worker raise `KeyboardInterrupt`, and no further one begin."""
        self._end.close()

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if the run is to stop."""
        if self._end.closed:
            raise KeyboardInterrupt


class Worker:
    """A worker process: a context that starts with none, and whose process ends with it at the latest.

    `start` starts it, `finish` waits for its end. Whatever interrupts either of them, the end of the context closes the channel, and the
    server then ends the process.
    """

    def __init__(self, log: Path, stop: Stop | None = None) -> None:
        self.server, self.stop = fork_server(log), stop
        self.pipe, self._their_pipe = Pipe()
        self.channel, self._their_channel = Pipe()
        self.pid = 0
        self.code: int | None = None
        self.gone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for end in (self.channel, self._their_channel, self.pipe, self._their_pipe):
            end.close()
        _running.discard(self)

    def start(self, function: Callable[[Any, Connection], None], job: Any, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start a process that runs `function(job, pipe)`.

        Args:
            environment: variables that it gets in addition.

        Raises:
            ServerGoneError: the fork server died or gave no answer. OSError: the system lets no process start.
        """
        directory = Path.cwd()
        _running.add(self)
        answer = self._ask()
        if isinstance(answer, Refused):
            raise OSError(answer.why)
        self.pid = answer.pid
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already; the channel tells why
            self.pipe.send((sys.path, directory, dict(environment)))
            self.pipe.send((function, job))

    def _ask(self) -> Started | Refused:
        patience = TO_ANSWER if self.server.ready else TO_IMPORT
        try:
            self.server.request(self._their_pipe, self._their_channel)
            self._their_pipe.close()
            self._their_channel.close()
            if not self._heard([self.channel], patience):
                self.server.kill(f"gave no answer within {patience} s")
                raise ServerGoneError(self.server.silent)
            answer: Started | Refused = self.channel.recv()
            self.server.ready = True
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise ServerGoneError(self.server.why_it_ended()) from error
        return answer

    def reports(self) -> bool:
        """Wait for a report or the worker's end; whether there is a report.

        Raises:
            KeyboardInterrupt: the run is to stop.
        """
        return self.pipe in self._heard([self.pipe, self.channel])

    def _heard(self, ends: list[Connection], patience: float | None = None) -> list[Any]:
        """Those of the connections on which there is something, within so many seconds.

        Raises:
            KeyboardInterrupt: the run is to stop.
        """
        all_ends = [*ends, *([self.stop.asked] if self.stop else [])]
        deadline = math.inf if patience is None else time.monotonic() + patience
        # In pieces: an interruption that is no signal, as of a task of Ray, is noticed between them.
        while not (heard := wait(all_ends, min(LOOK, max(0.0, deadline - time.monotonic())))) and time.monotonic() < deadline:
            pass
        if self.stop and self.stop.asked in heard:
            raise KeyboardInterrupt
        return heard

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
                self._kill()
        return self.gone

    def finish(self, patience: float) -> None:
        """Give the worker `patience` seconds to end by itself, then end it. An interruption ends the patience.

        A server that does not end it is killed.
        """
        if not self.pid:
            return
        try:
            self.wait(patience)
        finally:
            self.send_signal(signal.SIGKILL)
            if not self.wait(TO_DIE):
                self.server.kill(f"did not say within {TO_DIE} s how a worker ended; it may have been stopped, or a device does not answer")
                self._kill()

    def _kill(self) -> None:
        """Kill the worker without the server, which is gone or does not answer."""
        kill_remains(self.pid, self.server.folders())

    def kill_with_server(self) -> None:
        """Kill the worker and the server, for a process that is about to end at once."""
        self.server.kill("was killed with the command")
        if self.pid:
            self._kill()
        self.server.remove_folders()


_running: WeakSet[Worker] = WeakSet()


def hurry() -> None:
    """End the patience with all workers: what they have not saved by now is lost. The store stays whole."""
    for worker in _all_running():
        worker.send_signal(signal.SIGKILL)


def kill_all() -> None:
    """Kill all workers and the server without waiting for any answer, for a process that is about to end at once."""
    for worker in _all_running():
        worker.kill_with_server()


def _all_running() -> list[Worker]:
    """The workers that run. Other threads may start and end some meanwhile; a lock could be held by the thread that a signal interrupts."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(_running)


def execute(job: Job, listener: Listener, scored: Callable[[str], None] = lambda _: None, stop: Stop | None = None) -> Done | Failed:
    """Run one task in a worker process of its own and wait for it. If the first fork server dies, a new one starts the worker.

    Args:
        listener: its errors of input and output are passed over: a terminal or a disk that takes no output must not fail a node.
        scored: called for each task of an evaluation as soon as its scores are staged.
        stop: what interrupts the wait in a thread that signals do not interrupt.

    Raises:
        KeyboardInterrupt: after the worker is gone.
    """
    if stop is not None:
        stop.check()
    try:
        try:
            return _execute(job, listener, scored, stop)
        except ServerGoneError:
            return _execute(job, listener, scored, stop)
    except ServerGoneError as error:
        return Failed(disk_trouble(error, job.log.parent) or str(error))


def _execute(job: Job, listener: Listener, scored: Callable[[str], None], stop: Stop | None) -> Done | Failed:
    known = endings.before(_servers_log(job), job.log)
    try:
        context = Worker(_servers_log(job), stop)
    except OSError as error:
        return Failed(_why_not_started(error, job))
    with context as worker:
        patience: float = TO_SAVE
        try:
            try:
                worker.start(work, job, job.share.environment)
            except OSError as error:
                return Failed(_why_not_started(error, job))
            with contextlib.suppress(OSError):
                listener.started(worker.pid)
            report = _last_report(worker, job.log, listener, scored)
            patience = TO_END
        except BaseException:
            # The terminal interrupts its own session, which a worker has left.
            worker.send_signal(signal.SIGINT)
            raise
        finally:
            # At whatever moment the interruption came, nobody must go on writing.
            worker.finish(patience)
    if report is not None:
        return report
    if worker.code is None:  # the server has ended, with all its workers, perhaps because of another one
        return Failed(worker.server.why_it_ended(), "lost")
    return Failed(endings.why_it_ended(worker.code, known), endings.kind_of_end(worker.code, known))


def _servers_log(job: Job) -> Path:
    return job.log.with_name("workers.log")


def _why_not_started(error: OSError, job: Job) -> str:
    try:
        Path.cwd()
    except FileNotFoundError:
        return "no process could be started for it, because the working directory was deleted; change into one that exists and run again"
    return disk_trouble(error, job.log.parent) or f"no process could be started for it: {error}"


def _last_report(worker: Worker, log: Path, listener: Listener, scored: Callable[[str], None]) -> Done | Failed | None:
    """Hear a worker's reports until it has ended; its last one, if it gave one."""
    while worker.reports():
        try:
            report: Report = worker.pipe.recv()
        except (EOFError, OSError):
            break
        match report:
            case Progressed():
                with contextlib.suppress(OSError):
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
