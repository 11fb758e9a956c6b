"""The fork server: imports the heavy libraries once, forks workers, and ends each of them with everything that it started.

It computes nothing, so forking it is safe. It waits for events, so it kills a worker at once, also one that is in a long call of native
code and lets none of its own threads run. It is reached through inherited sockets: there is no file of a socket to find or to leave behind.

A worker ends when its channel closes, and all end when the process that started the server is gone. On Linux the kernel ends them when the
server is killed (`PR_SET_PDEATHSIG`). Each worker has a temporary folder of its own, which is removed after it.

Signals that end a command (`ENDING`) are for the command to handle, and for a worker, which may save how far it has come. The server passes
over them: it ends with the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
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

from compresslab.children import ENDING, python

# Options of prctl(2). They exist on Linux only.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Seconds between two looks at whether the parent lives, and the longest that killed processes are waited for. One that waits for a device
# or a network disk ends only when that answers.
LOOK, TO_REAP = 0.5, 3.0
# Seconds in which a worker tidies up after such a signal, and further ones do not disturb it.
TO_SAVE = 15
# What a worker runs that cannot stay a fork of the server.
FRESH = "from compresslab.runner.server import begin_afresh; begin_afresh(*given)"


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


def main(control: int, parent: int, preload: Sequence[str]) -> None:
    """Serve the process `parent` until it is gone or has closed its end of the socket `control`.

    Args:
        preload: the modules to import before the first fork.
    """
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)
    with socket.socket(fileno=control) as requests:
        # While it imports it cannot look whether its parent lives.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            return
        for name in preload:
            import_module(name)
        _prctl(PR_SET_PDEATHSIG, 0)
        code = 1
        try:
            _Server(requests, parent, preload).serve()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            # The interpreter would take seconds to take the heavy libraries apart, and whoever ended the run waits for this process.
            _leave(code)


class _Worker(NamedTuple):
    channel: Connection
    folder: Path


class _Server:
    def __init__(self, requests: socket.socket, parent: int, preload: Sequence[str]) -> None:
        self.requests, self.parent, self.preload = requests, parent, preload
        self.workers: dict[int, _Worker] = {}
        self.folders: list[Path] = []  # in which those of the workers are made: one, unless somebody removes it
        self.over = False
        self.waiting = selectors.DefaultSelector()
        self.wakes = socket.socketpair()  # a signal writes into the second one

    def serve(self) -> None:
        """Fork, signal and reap workers until the end, then kill those that are left."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a worker started becomes a child of this process when the worker ends
        for end in self.wakes:
            end.setblocking(False)
        signal.set_wakeup_fd(self.wakes[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.waiting.register(self.requests, selectors.EVENT_READ, self._fork)
        self.waiting.register(self.wakes[0], selectors.EVENT_READ, lambda: self.wakes[0].recv(4096))
        try:
            while not self.over and os.getppid() == self.parent:
                for event, _ in self.waiting.select(LOOK):
                    event.data()
                self._reap()
        finally:
            self._kill_all()

    def _fork(self) -> None:
        """Take a request, which is one byte with the ends of a worker's pipe and of its channel, and fork a worker for it."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.requests, 1, 2)
        except ConnectionResetError:  # the parent was killed before it read what was written to it
            message, descriptors = b"", []
        if not message:
            self.over = True
            return
        pipe, channel = (Connection(descriptor) for descriptor in descriptors)
        try:
            folder = self._new_folder()
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

    def _new_folder(self) -> Path:
        """A temporary folder for a worker. Other users can neither guess its name nor write into it. The parent learns where it is."""
        with contextlib.suppress(FileNotFoundError, IndexError):
            return Path(tempfile.mkdtemp(dir=self.folders[-1]))
        # The first one, or the system has removed the last one, as it does with old temporary files.
        self.folders.append(Path(tempfile.mkdtemp(prefix="compresslab-")))
        self.requests.send(os.fsencode(self.folders[-1]) + b"\0")
        return Path(tempfile.mkdtemp(dir=self.folders[-1]))

    def _become_worker(self, pipe: Connection, folder: Path, server: int) -> NoReturn:
        """The forked process: forget what is the server's, then do what comes through the pipe."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.waiting.close()
            for end in (self.requests, *self.wakes):
                end.close()
            for worker in self.workers.values():
                worker.channel.close()
            if _devices_were_asked():
                os.set_inheritable(pipe.fileno(), True)
                command = python(FRESH, pipe.fileno(), str(folder), server, self.preload)
                os.execv(command[0], command)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        _work(pipe, folder, server)

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
        deadline = time.monotonic() + TO_REAP
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
        """What workers that have ended left: what is in their sessions or has their folder, also in a session of its own.

        On Linux, what outlives its parent becomes a child of this process. When no worker runs, that is every other child.
        """
        adopted = {child.pid for child in psutil.Process().children()} - set(self.workers)
        if set(self.workers) - ended:
            adopted = {pid for pid in adopted if any(_has_folder(pid, self.workers[worker].folder) for worker in ended)}
        return adopted | (in_sessions(ended) - set(self.workers))

    def _kill_all(self) -> None:
        _kill(self.workers)
        deadline = time.monotonic() + TO_REAP
        while self.workers and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.002)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def begin_afresh(pipe: int, folder: str, server: int, preload: Sequence[str]) -> NoReturn:
    """Work in a new interpreter, for a forked process that could not use the accelerators.

    Args:
        pipe: descriptor of the worker's pipe. folder: its temporary folder. server: process id of the server.
        preload: the modules that the server has imported.
    """
    _work(Connection(pipe), Path(folder), server, preload)


def _devices_were_asked() -> bool:
    """Whether the server has asked an accelerator's driver for its devices, so that this fork of it cannot use them.

    What is imported decides that, and libraries change: torchao, which transformers imports, asks CUDA when it is imported.
    """
    modules = (sys.modules.get(f"torch.{kind}") for kind in ("cuda", "xpu"))
    return any(module is not None and module._is_in_bad_fork() for module in modules)


def _work(pipe: Connection, folder: Path, server: int, preload: Sequence[str] = ()) -> NoReturn:
    """Do what comes through the pipe, then end this process."""
    code = 1
    try:
        _interrupt_at_signals()
        _die_with(server)
        os.set_inheritable(pipe.fileno(), False)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            sys.path[:], directory, environment = pipe.recv()
            os.environ.update(environment)  # before a library asks for the accelerators that it may use
            os.chdir(directory)
            for name in preload:
                import_module(name)
            function, job = pipe.recv()
        except EOFError:  # nobody waits for it any more
            os._exit(code)
        function(job, pipe)
        code = 0
    except BaseException:
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process at once, with what it has said."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def in_sessions(leaders: set[int]) -> set[int]:
    """The processes in the sessions that these processes lead or led. A leader's id stands for its session until that is empty."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) in leaders:
                found.add(pid)
    return found


def kill_remains(leader: int, folders: Sequence[Path]) -> None:
    """Kill what a worker left, for whoever finds that the server was killed and cannot do it.

    That is what is in the worker's session, and what has its temporary folder in its environment, in whatever session it is.

    Args:
        leader: process id of the worker. folders: the server's, of temporary folders.
    """
    for _ in range(2):  # what started during the first look is met by the second
        _kill(in_sessions({leader}) | {pid for pid in psutil.pids() if any(_has_folder(pid, folder) for folder in folders)})


def _has_folder(pid: int, folder: Path) -> bool:
    """Whether the temporary folder of a process is this one or in it."""
    with contextlib.suppress(psutil.Error, OSError):
        return Path(psutil.Process(pid).environ().get("TMPDIR", "")).is_relative_to(folder)
    return False


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


def _interrupt_at_signals() -> None:
    """Let the signals that end a command raise `KeyboardInterrupt` in this process, which says which it was, but not in its children."""
    last = -math.inf

    def interrupt(signum: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > TO_SAVE:
            last = time.monotonic()
            raise KeyboardInterrupt(signal.Signals(signum).name)

    def forget() -> None:
        for signum in set(ENDING) - {signal.SIGINT}:
            if signal.getsignal(signum) is interrupt:
                signal.signal(signum, signal.SIG_DFL)

    for signum in ENDING:
        signal.signal(signum, interrupt)
    os.register_at_fork(after_in_child=forget)  # `multiprocessing` ends its processes by SIGTERM


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
