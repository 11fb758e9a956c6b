"""Workers in bad company: stopped servers, signals to all processes, interruptions at any line, files that lie in wait."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from compresslab.records.compute import PROCESSOR
from compresslab.runner import processes, server_process
from compresslab.runner.messages import Done, Failed, Progressed, ReloadJob, Share
from compresslab.runner.processes import Listener, Worker, execute

pytestmark = pytest.mark.slow
LINUX = sys.platform == "linux"


@pytest.fixture
def job(tmp_path: Path) -> ReloadJob:
    return ReloadJob(tmp_path, tmp_path / "probe.pt", tmp_path / "log", Share(1, {}), PROCESSOR)


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fork server for this test, which imports this file alone before it forks."""
    monkeypatch.setattr(server_process, "PRELOAD", [__name__])
    monkeypatch.setattr(server_process, "_servers", [])
    yield
    for server in server_process._servers:
        server.close()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def soon(true: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return now


def hang(_: ReloadJob, pipe: Connection) -> None:
    pipe.send(Progressed(0.5, str(os.getpid())))
    time.sleep(600)


def fine(_: ReloadJob, pipe: Connection) -> None:
    pipe.send(Progressed(0.5, str(os.getpid())))
    pipe.send(Done(1.0, 0.0, 0, ""))


def saves(job: ReloadJob, pipe: Connection) -> None:
    """What a training does: an interruption makes it write a checkpoint."""
    try:
        pipe.send(Progressed(0.5, str(os.getpid())))
        time.sleep(600)
    except KeyboardInterrupt as interruption:
        time.sleep(0.5)
        (job.folder / "saved").write_text(str(interruption))
        raise


class Do(Listener):
    """Does something at the first sign of the worker, whose process id it gets."""

    def __init__(self, what: Callable[[int], object]) -> None:
        self.what = what

    def progress(self, share: float, text: str, amount: object = None) -> None:
        self.what(int(text))


@pytest.mark.usefixtures("own_server")
def test_no_file_of_the_working_directory_is_run(job: ReloadJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    for name in ("json", "selectors", "psutil", "compresslab"):
        (tmp_path / "here" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(processes, "work", fine)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("own_server")
def test_the_temporary_folder_is_made_under_a_new_name_for_this_user_alone(job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "work", fine)
    modes: list[int] = []

    def look(_: int) -> None:
        [server] = server_process._servers
        [folder] = server.folders()
        modes.append(stat.S_IMODE(folder.stat().st_mode))
        assert folder.name not in " ".join(psutil.Process(server.process.pid).cmdline())

    execute(job, Do(look))
    assert modes == [0o700]
    [server] = server_process._servers
    for folder in server.folders():  # as the system does with old temporary files
        folder.rmdir()
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert len(server.folders()) == 2


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_job_lets_the_worker_save(signum: int, job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_all(pid: int) -> None:
        for process in (pid, server_process._servers[0].process.pid):
            os.kill(process, signum)
        time.sleep(0.1)
        raise KeyboardInterrupt  # the command's own, which sends one more to the worker

    monkeypatch.setattr(processes, "work", saves)
    with pytest.raises(KeyboardInterrupt):
        execute(job, Do(to_all))
    assert (job.folder / "saved").read_text() == signal.Signals(signum).name


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize("killed", [True, False])
def test_a_server_that_is_stopped_stops_no_command(killed: bool, job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TO_END", 0.2)
    monkeypatch.setattr(processes, "TO_DIE", 0.2)
    monkeypatch.setattr(processes, "work", hang if killed else fine)
    pids: list[int] = []

    def stop(pid: int) -> None:
        pids.append(pid)
        os.kill(server_process._servers[0].process.pid, signal.SIGSTOP)
        if killed:
            os.kill(pid, signal.SIGKILL)

    outcome = execute(job, Do(stop))
    if killed:
        assert isinstance(outcome, Failed)
        assert outcome.cause.startswith("the process that starts the workers did not say within 0.2 s how a worker ended")
    else:
        assert outcome == Done(1.0, 0.0, 0, "")
    assert soon(lambda: not alive(pids[0]))
    monkeypatch.setattr(processes, "work", fine)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, ""), "a new server"


@pytest.mark.usefixtures("own_server")
def test_a_server_that_gives_no_answer_is_replaced(job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TO_ANSWER", 0.5)
    monkeypatch.setattr(processes, "work", fine)
    execute(job, Listener())
    stopped = server_process._servers[0].process
    stopped.send_signal(signal.SIGSTOP)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert stopped.wait(5) == -signal.SIGKILL


class Interrupting:
    """Raises `KeyboardInterrupt` at the `number`-th line that some functions run, once. `left` is how many lines it still waits for."""

    FUNCTIONS = frozenset(
        function.__code__
        for function in (
            *(processes._execute, processes._last_report, Worker.__init__, Worker.__enter__, Worker.__exit__),
            *(Worker.start, Worker._ask, Worker.finish, Worker.wait, Worker.send_signal, Worker.reports),
        )
    )

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: Any) -> Interrupting | None:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return self if frame.f_code in self.FUNCTIONS else None


@pytest.mark.usefixtures("own_server")
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces the tests")
def test_an_interruption_at_any_line_leaves_no_worker(job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TO_SAVE", 0.1)
    monkeypatch.setattr(processes, "TO_END", 0.1)
    monkeypatch.setattr(processes, "work", fine)
    execute(job, Listener())
    server = psutil.Process(server_process._servers[0].process.pid)
    number, over = 0, False
    while not over:
        number += 1
        tracer = Interrupting(number)
        try:
            sys.settrace(tracer)
            execute(job, Listener())
            over = tracer.left > 0
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert soon(lambda: not server.children(), 5), f"a worker is left after an interruption at line {number}"
    assert number > 40
    assert server.is_running()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
@pytest.mark.usefixtures("own_server")
def test_a_listener_that_cannot_print_fails_no_node(number: int, job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def print_it(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(processes, "work", fine)
    assert execute(job, Do(print_it)) == Done(1.0, 0.0, 0, "")


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize("relative", [True, False])
def test_a_deleted_working_directory_is_named(relative: bool, job: ReloadJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = execute(job._replace(log=Path("logs/log")) if relative else job, Listener())
    assert isinstance(outcome, Failed)
    assert "because the working directory was deleted; change into one that exists" in outcome.cause


def leaves_orphans(_: ReloadJob, pipe: Connection) -> None:
    """Programs whose parent ends first, some of which end before the worker does."""
    for seconds in (0, 0, 600):
        subprocess.run(["sh", "-c", f"sleep {seconds} &"], check=True, start_new_session=True)
    time.sleep(0.3)
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    pipe.send(Done(float(len(zombies)), 0.0, 0, ""))


@pytest.mark.usefixtures("own_server")
@pytest.mark.skipif(not LINUX, reason="elsewhere, orphans go to the first process")
def test_orphans_of_a_worker_end_with_it_and_become_no_zombies(job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another worker, which keeps its own."""
    monkeypatch.setattr(processes, "work", leaves_orphans)
    with Worker(job.log) as other:
        other.start(keeps_an_orphan, job)
        kept = int(other.pipe.recv().text)
        assert execute(job, Listener()) == Done(0.0, 0.0, 0, "")
        server = psutil.Process(server_process._servers[0].process.pid)
        assert soon(lambda: sorted(child.pid for child in server.children()) == sorted([other.pid, kept]), 5)
        other.finish(0)
    assert soon(lambda: not server.children(), 5)


def keeps_an_orphan(_: ReloadJob, pipe: Connection) -> None:
    said = subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], check=True, start_new_session=True, capture_output=True, text=True
    )
    pipe.send(Progressed(0.5, said.stdout.strip()))
    time.sleep(600)


@pytest.mark.usefixtures("own_server")
def test_at_the_third_signal_no_process_is_asked_anything(job: ReloadJob) -> None:
    """The workers are killed also if the server is stopped."""
    with Worker(job.log) as worker:
        worker.start(hang, job)
        worker.pipe.recv()
        worker.server.process.send_signal(signal.SIGSTOP)
        processes.kill_all()
        assert soon(lambda: not alive(worker.pid), 2)
        assert not any(folder.exists() for folder in worker.server.folders())
