"""The fork server: imports the heavy libraries once, forks workers, and ends each of them with everything that it started.

It computes nothing, so forking it is safe. It waits for events, so it kills a worker at once, also one that is in a long call of native
code and lets none of its own threads run. It is reached through inherited sockets: there is no file of a socket to find or to leave behind.

A worker ends when its channel closes, and all end when the process that started the server is gone. On Linux the kernel ends them when the
server is killed (`PR_SET_PDEATHSIG`). Each worker has a temporary folder of its own, which is removed after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import psutil

# Options of prctl(2). They exist on Linux only.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Seconds between two looks at whether the parent lives, and the longest that killed processes are waited for. One that waits for a device
# or a network disk ends only when that answers.
LOOK, TO_DIE = 0.5, 3.0


class Started(NamedTuple):
    """A worker runs: the server's first report about it."""

    pid: int


class Refused(NamedTuple):
    """The system lets no worker start: the server's only report about it."""

    why: str


class Ended(NamedTuple):
    """A worker and everything that it started is gone; the server's last report about it.

    Attributes:
        code: its exit code; if a signal killed it, the negative number of the signal.
    """

    code: int


def main(control: int, parent: int, folder: str, preload: Sequence[str]) -> None:
    """Serve the process `parent` until it is gone or has closed its end of the socket `control`.

    Args:
        folder: where the workers' temporary folders are made. preload: the modules to import before the first fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=control) as requests:
        # While it imports it cannot look whether its parent lives.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            return
        for name in preload:
            import_module(name)
        _prctl(PR_SET_PDEATHSIG, 0)
        _Server(requests, parent, Path(folder)).serve()


class _Worker(NamedTuple):
    channel: Connection
    folder: Path


class _Server:
    def __init__(self, requests: socket.socket, parent: int, folder: Path) -> None:
        self.requests, self.parent, self.folder = requests, parent, folder
        self.workers: dict[int, _Worker] = {}
        self.count = 0
        self.over = False
        self.stopped_by = 0
        self.waiting = selectors.DefaultSelector()
        self.wakes = socket.socketpair()  # a signal writes into the second one

    def serve(self) -> None:
        """Fork, signal and reap workers until the end, then kill those that are left."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a worker started becomes a child of this process when the worker ends
        for end in self.wakes:
            end.setblocking(False)
        signal.set_wakeup_fd(self.wakes[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._stop)
        self.waiting.register(self.requests, selectors.EVENT_READ, self._fork)
        self.waiting.register(self.wakes[0], selectors.EVENT_READ, lambda: self.wakes[0].recv(4096))
        try:
            while not self.over and os.getppid() == self.parent:
                for event, _ in self.waiting.select(LOOK):
                    event.data()
                self._reap()
        finally:
            self._kill_all()
        if self.stopped_by:
            signal.signal(self.stopped_by, signal.SIG_DFL)
            os.kill(os.getpid(), self.stopped_by)

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self.stopped_by, self.over = signum, True

    def _fork(self) -> None:
        """Take a request, which is one byte with the ends of a worker's pipe and of its channel, and fork a worker for it."""
        message, descriptors, _, _ = socket.recv_fds(self.requests, 1, 2)
        if not message:
            self.over = True
            return
        pipe, channel = (Connection(descriptor) for descriptor in descriptors)
        self.count += 1
        folder = self.folder / str(self.count)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700)
            server, pid = os.getpid(), os.fork()
        except OSError as error:
            _tell(channel, Refused(f"{error.strerror} ({error.filename or 'fork'})"))
            channel.close()
            pipe.close()
            return
        if pid == 0:
            channel.close()
            self._become_worker(pipe, folder, server)
        pipe.close()
        self.workers[pid] = _Worker(channel, folder)
        self.waiting.register(channel, selectors.EVENT_READ, lambda: self._signal(pid))
        _tell(channel, Started(pid))

    def _become_worker(self, pipe: Connection, folder: Path, server: int) -> NoReturn:
        """The forked process: forget what is the server's, then do what comes through the pipe."""
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _die_with(server)
            _prctl(PR_SET_CHILD_SUBREAPER, 1)  # so that the server's other children are all of workers that have ended
            self.waiting.close()
            for end in (self.requests, *self.wakes):
                end.close()
            for worker in self.workers.values():
                worker.channel.close()
            os.set_inheritable(pipe.fileno(), False)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
            try:
                sys.path[:], directory = pipe.recv()
                os.chdir(directory)
                function, job = pipe.recv()
            except EOFError:  # nobody waits for it any more
                os._exit(code)
            function(job, pipe)
            code = 0
        except BaseException:
            with contextlib.suppress(OSError):  # the log's disk may be full
                traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    def _signal(self, pid: int) -> None:
        """Pass on a signal from the worker's channel, or kill the worker if the channel is closed."""
        channel = self.workers[pid].channel
        try:
            signum = channel.recv()
        except (EOFError, OSError):
            signum = signal.SIGKILL
            self.waiting.unregister(channel)
        # It has not been reaped, so the id is its own.
        os.kill(pid, signum)

    def _reap(self) -> None:
        """Report the workers that have ended, after what they left is gone."""
        ended = dict(self._collect())
        if not ended:
            return
        deadline = time.monotonic() + TO_DIE
        while (rest := self._rest(set(ended))) and time.monotonic() < deadline:
            _kill(rest)
            time.sleep(0.002)
            ended |= dict(self._collect())
        for pid, code in ended.items():
            worker = self.workers.pop(pid)
            shutil.rmtree(worker.folder, ignore_errors=True)
            with contextlib.suppress(KeyError):
                self.waiting.unregister(worker.channel)
            _tell(worker.channel, Ended(code))
            worker.channel.close()

    def _collect(self) -> Iterator[tuple[int, int]]:
        """The workers that have ended, each with its exit code. Other children are reaped, too."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid in self.workers:
                    yield pid, os.waitstatus_to_exitcode(status)

    def _rest(self, ended: set[int]) -> set[int]:
        """What workers that have ended left: on Linux every child that is no worker, elsewhere what is in their sessions."""
        children = {child.pid for child in psutil.Process().children()}
        return (children | in_sessions(ended)) - set(self.workers)

    def _kill_all(self) -> None:
        _kill(self.workers)
        deadline = time.monotonic() + TO_DIE
        while self.workers and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.002)
        shutil.rmtree(self.folder, ignore_errors=True)


def in_sessions(leaders: set[int]) -> set[int]:
    """The processes in the sessions that these processes lead or led. A leader's id stands for its session until that is empty."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) in leaders:
                found.add(pid)
    return found


def kill_remains(leader: int, folder: Path) -> None:
    """Kill what a worker left, for whoever finds that the server was killed and cannot do it.

    That is what is in the worker's session, and what has its temporary folder in its environment, in whatever session it is.

    Args:
        leader: process id of the worker. folder: of the server's temporary folders.
    """
    for _ in range(2):  # what started during the first look is met by the second
        _kill(in_sessions({leader}) | _with_folder(folder))


def _with_folder(folder: Path) -> set[int]:
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.environ().get("TMPDIR", "")).is_relative_to(folder):
                found.add(process.pid)
    return found


def _kill(pids: Sequence[int] | set[int] | dict[int, _Worker]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _tell(channel: Connection, report: Started | Refused | Ended) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        channel.send(report)


def _prctl(option: int, value: int) -> bool:
    """Set an attribute of this process in the kernel; false where there is no such thing."""
    return sys.platform.startswith("linux") and bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def _die_with(parent: int) -> None:
    """End this process as soon as its parent ends. Without the kernel's help a thread looks, which a long call of native code can stop."""
    if not _prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    _kill(in_sessions({os.getpid()}))
