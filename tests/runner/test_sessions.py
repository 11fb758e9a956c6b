"""Whatever ends a worker ends the processes that it started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from compresslab.records.compute import PROCESSOR
from compresslab.runner import processes as executors
from compresslab.runner import sessions
from compresslab.runner.messages import Done, Failed, Progressed, ReloadJob
from compresslab.runner.processes import Listener, execute

pytestmark = pytest.mark.slow
SLEEP = "import time; time.sleep(600)"


def leave_children(folder: Path) -> None:
    """Start a process, one in a group of its own, and one by fork that holds all that is open here."""
    children = [subprocess.Popen([sys.executable, "-c", SLEEP], process_group=group) for group in (None, 0)]
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    forked.start()
    note = folder / "children"
    note.with_suffix(".part").write_text(" ".join(str(pid) for pid in (*(child.pid for child in children), forked.pid)))
    note.with_suffix(".part").rename(note)


def done(job: ReloadJob, pipe: Connection) -> None:
    sessions.lead(pipe)
    leave_children(job.folder)
    pipe.send(Done(1.0, 0.0, 0, ""))


def failed(job: ReloadJob, pipe: Connection) -> None:
    sessions.lead(pipe)
    leave_children(job.folder)
    pipe.send(Failed("no luck"))


def killed(job: ReloadJob, pipe: Connection) -> None:
    sessions.lead(pipe)
    leave_children(job.folder)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(job: ReloadJob, pipe: Connection) -> None:
    sessions.lead(pipe)
    leave_children(job.folder)
    pipe.send(Progressed(0.5, "hanging"))
    time.sleep(600)


class Interrupted(Listener):
    """What Ctrl-C does while a worker runs."""

    def progress(self, share: float, text: str, amount: object = None) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def job(tmp_path: Path) -> ReloadJob:
    return ReloadJob(tmp_path, tmp_path / "probe.pt", tmp_path / "log", 1, PROCESSOR)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "TO_END", 0.5)
    monkeypatch.setattr(executors, "TO_SAVE", 0.5)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Process ids of what the worker started."""

    def asked() -> list[int]:
        return [int(pid) for pid in (tmp_path / "children").read_text().split()]

    yield asked
    for pid in asked():  # so that a failing test leaves none, either
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay in the table until somebody asks how."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(("work", "said"), [(done, ""), (failed, "no luck"), (killed, "its process was killed by SIGKILL")])
def test_a_worker_that_ends_leaves_no_process(
    work: Callable[..., None], said: str, job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "work", work)
    outcome = execute(job, Listener())
    cause = outcome.cause if isinstance(outcome, Failed) else ""
    assert cause.startswith(said)
    assert bool(cause) == bool(said)
    assert len(children()) == 3
    assert soon(lambda: not any(map(alive, children())))


def test_an_interrupted_worker_leaves_no_process(
    job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "work", hang)
    with pytest.raises(KeyboardInterrupt):
        execute(job, Interrupted())
    assert soon(lambda: not any(map(alive, children())))


# Runs a worker that hangs, as a command would.
COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_sessions as here
from compresslab.runner import processes as executors
executors.work = here.hang
if {early}:
    class Leave(executors.Listener):
        def progress(self, *_):
            import os
            here.sessions.finish = lambda *_: None
            raise SystemExit(0)
else:
    Leave = executors.Listener
folder = Path({folder!r})
executors.execute(here.ReloadJob(folder, folder / "probe.pt", folder / "log", 1, here.PROCESSOR), Leave())
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "exit"])
def test_a_command_that_goes_takes_its_workers_with_it(how: str, tmp_path: Path, children: Callable[[], list[int]]) -> None:
    code = COMMAND.format(here=str(Path(__file__).parent), folder=str(tmp_path), early=how == "exit")
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        assert soon((tmp_path / "children").exists)
        assert how == "exit" or all(map(alive, children()))
        if how != "exit":
            command.send_signal(getattr(signal, how))
        command.wait(timeout=60)
        assert soon(lambda: not any(map(alive, children())))
    finally:
        command.kill()
        command.wait()


def test_a_worker_may_start_processes_of_its_own(
    job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`multiprocessing` refuses that to daemons, and vLLM starts its engines so."""
    monkeypatch.setattr(executors, "work", done)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert len(children()) == 3
