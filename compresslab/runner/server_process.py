"""The fork server (`runner.server`) as the process that starts it sees it: one for each process, started with the first worker."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from compresslab.children import python
from compresslab.errors import RunFailed
from compresslab.runner import endings

# Seconds in which a worker or a server that is killed or told to end is gone, unless it waits for a device or a network disk.
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
PROGRAM = "from compresslab.runner.server import main; main(*given)"
WHO = "the process that starts the workers"


class ServerGoneError(RunFailed):
    """The fork server ended, or does not answer, before a worker ran; the text says why."""


class ForkServer:
    """The process from which workers are forked, with the heavy libraries imported once.

    What the libraries print while it imports them, and while it forks, goes to `log`.
    """

    def __init__(self, log: Path) -> None:
        self.log, self.owner = log, os.getpid()
        self.ready = False  # it has imported what it is to import
        self.silent = ""  # why it was killed, if it did not answer
        self._guard = threading.Lock()
        self._folders = b""  # what it has told of its temporary folders, each with a null character behind it
        log.parent.mkdir(parents=True, exist_ok=True)
        self.known = endings.before(log)
        self.requests, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            self.process = subprocess.Popen(
                python(PROGRAM, theirs.fileno(), os.getpid(), PRELOAD),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT | os.environ,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # what the terminal sends to the run's processes is for the run to pass on
            )
        atexit.register(self.close)

    def usable(self) -> bool:
        """Whether this process started it, and it runs and answers."""
        return self.owner == os.getpid() and not self.silent and self.process.poll() is None

    def request(self, pipe: Connection, channel: Connection) -> None:
        """Ask for a worker with these ends of its pipe and of its channel."""
        socket.send_fds(self.requests, [b"w"], [pipe.fileno(), channel.fileno()])

    def folders(self) -> list[Path]:
        """Where it has made the workers' temporary folders."""
        with self._guard, contextlib.suppress(OSError):  # nothing new, or closed
            while new := self.requests.recv(2**12, socket.MSG_DONTWAIT):
                self._folders += new
        return [Path(os.fsdecode(name)) for name in self._folders.split(b"\0")[:-1]]

    def kill(self, why: str) -> None:
        """Kill it, because it does not answer."""
        self.silent = self.silent or f"{WHO} {why}. {endings.AGAIN}"
        if self.owner == os.getpid():
            self.process.kill()  # also one that is stopped

    def why_it_ended(self) -> str:
        """Why the server is gone. One that does not end is killed."""
        try:
            code = self.process.wait(TO_DIE)
        except subprocess.TimeoutExpired:
            self.kill(f"has closed its channels and did not end within {TO_DIE} s")
        return self.silent or endings.why_it_ended(code, self.known, WHO)

    def close(self) -> None:
        """End the server and its workers, and wait until they are gone."""
        atexit.unregister(self.close)
        if self.owner != os.getpid():
            self.requests.close()
            return
        if not self.ready:  # it has no worker, and would import to the end
            self.process.kill()
        with contextlib.suppress(OSError):
            self.requests.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(TO_DIE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TO_DIE)
        self.remove_folders()
        self.requests.close()

    def remove_folders(self) -> None:
        """Remove the workers' temporary folders, which it cannot do if it was killed."""
        for folder in self.folders():
            shutil.rmtree(folder, ignore_errors=True)


_servers: list[ForkServer] = []  # at most one


def fork_server(log: Path) -> ForkServer:
    """The fork server of this process, started if there is none."""
    with STARTING:
        if _servers and not _servers[0].usable():
            _servers.pop().close()
        if not _servers:
            _servers.append(ForkServer(log))
        return _servers[0]
