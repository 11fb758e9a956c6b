"""Whatever ends a worker ends the processes that it started."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from compresslab.records.compute import PROCESSOR
from compresslab.runner import processes as executors
from compresslab.runner import server_process
from compresslab.runner.messages import Done, Failed, Progressed, ReloadJob, Share
from compresslab.runner.processes import Listener, execute

pytestmark = pytest.mark.slow
LINUX = sys.platform == "linux"
SLEEP = "import time; time.sleep(600)"
DAEMON = f"""
import subprocess, sys
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
Path(sys.argv[1]).write_text(str(child.pid))
"""
STARTED = 4 if LINUX else 3


def leave_children(folder: Path) -> None:
    """Start processes: two of a plain kind, one in a group of its own, one by fork that holds all that is open here.

    On Linux also one that leads a session of its own and whose parent has ended.
    """
    children = [subprocess.Popen([sys.executable, "-c", SLEEP], process_group=group) for group in (None, 0)]
    daemons = []
    if LINUX:
        subprocess.run([sys.executable, "-c", DAEMON, str(folder / "daemon")], check=True)
        daemons.append((folder / "daemon").read_text())
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    forked.start()
    note = folder / "children"
    note.with_suffix(".part").write_text(" ".join(map(str, (*(child.pid for child in children), forked.pid, *daemons))))
    note.with_suffix(".part").rename(note)


def done(job: ReloadJob, pipe: Connection) -> None:
    leave_children(job.folder)
    pipe.send(Done(1.0, 0.0, 0, ""))


def failed(job: ReloadJob, pipe: Connection) -> None:
    leave_children(job.folder)
    pipe.send(Failed("no luck"))


def killed(job: ReloadJob, _: Connection) -> None:
    leave_children(job.folder)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(job: ReloadJob, pipe: Connection) -> None:
    leave_children(job.folder)
    pipe.send(Progressed(0.5, "hanging"))
    time.sleep(600)


def hold(job: ReloadJob, pipe: Connection) -> None:
    """A long call of native code that lets no other thread of the interpreter run."""
    leave_children(job.folder)
    pipe.send(Progressed(0.5, "holding"))
    ctypes.PyDLL(None).sleep(600)


class Interrupted(Listener):
    """What Ctrl-C does while a worker runs."""

    def progress(self, share: float, text: str, amount: object = None) -> None:
        raise KeyboardInterrupt


class InterruptedTwice(Interrupted):
    """And again half a second later."""

    def progress(self, share: float, text: str, amount: object = None) -> None:
        threading.Timer(0.5, executors.hurry).start()
        super().progress(share, text, amount)


@pytest.fixture
def job(tmp_path: Path) -> ReloadJob:
    return ReloadJob(tmp_path, tmp_path / "probe.pt", tmp_path / "log", Share(1, {}), PROCESSOR)


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


def soon(true: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
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
    assert len(children()) == STARTED
    assert soon(lambda: not any(map(alive, children())))


def test_an_interrupted_worker_leaves_no_process(
    job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "work", hang)
    with pytest.raises(KeyboardInterrupt):
        execute(job, Interrupted())
    assert soon(lambda: not any(map(alive, children())))


def stubborn(_: ReloadJob, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(Progressed(0.5, "hanging"))
    time.sleep(600)


def test_a_second_interruption_ends_the_patience(job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "work", stubborn)
    monkeypatch.setattr(executors, "TO_SAVE", 600)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute(job, InterruptedTwice())
    assert time.monotonic() - start < 60
    assert not executors._running


# Runs a worker, as a command would.
COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_sessions as here
from compresslab.runner import processes as executors, server_process
executors.work = here.{work}
server_process.PRELOAD.clear()
class Leave(executors.Listener):
    def progress(self, *_):
        if {early}:
            executors.Worker.finish = executors.Worker.__exit__ = lambda *_: None
            raise SystemExit(0)
folder = Path({folder!r})
executors.execute(here.ReloadJob(folder, folder / "probe.pt", folder / "log", here.Share(1, {{}}), here.PROCESSOR), Leave())
"""


def temporary(folder: Path) -> dict[str, str]:
    """An environment with a temporary folder of its own, whose path is longer than the name of a socket may be."""
    long = folder / ("t" * 150)
    long.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(long)}


@pytest.mark.parametrize(
    ("how", "work"), [("SIGKILL", "hang"), ("SIGKILL", "hold"), ("SIGTERM", "hang"), ("SIGHUP", "hang"), ("exit", "hang"), ("exit", "hold")]
)
def test_a_command_that_goes_takes_its_workers_with_it(how: str, work: str, tmp_path: Path, children: Callable[[], list[int]]) -> None:
    code = COMMAND.format(here=str(Path(__file__).parent), folder=str(tmp_path), early=how == "exit", work=work)
    environment = temporary(tmp_path)
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment)
    try:
        assert soon((tmp_path / "children").exists)
        if how != "exit":
            command.send_signal(getattr(signal, how))
        _, said = command.communicate(timeout=60)
        assert soon(lambda: not any(map(alive, children())), 2)
        # torch has a folder there, one a user, which it makes when it is imported and which may stay.
        assert soon(lambda: not [path for path in Path(environment["TMPDIR"]).iterdir() if "torchinductor" not in path.name], 2)
        assert said == b""
    finally:
        command.kill()
        command.wait()


def end_servers() -> None:
    while server_process._servers:
        server_process._servers.pop().close()


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that a new fork server imports: `first_imported` alone."""
    end_servers()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(server_process, "PRELOAD", ["first_imported"])
    yield tmp_path
    end_servers()


DIES_ONCE = """
import os, signal
from pathlib import Path
try:
    Path(__file__).with_name("tried").touch(exist_ok=False)
except FileExistsError:
    pass
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fork_server_that_dies_while_it_imports_is_started_again(modules: Path, job: ReloadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "first_imported.py").write_text(DIES_ONCE)
    monkeypatch.setattr(executors, "work", fine)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert (modules / "tried").exists()


ASKS_FOR_DEVICES = """
import os, sys, types
asked = os.getpid()
sys.modules["torch.cuda"] = types.SimpleNamespace(_is_in_bad_fork=lambda: os.getpid() != asked)
"""


def hang_in_a_new_interpreter(job: ReloadJob, pipe: Connection) -> None:
    assert sys.modules["first_imported"].asked == os.getpid()  # type: ignore[attr-defined]
    assert Path(os.environ["TMPDIR"]).is_dir()
    hang(job, pipe)


def test_a_worker_is_no_fork_of_a_server_that_has_asked_for_devices(
    modules: Path, job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "first_imported.py").write_text(ASKS_FOR_DEVICES)
    monkeypatch.setattr(executors, "work", hang_in_a_new_interpreter)
    with pytest.raises(KeyboardInterrupt):
        execute(job, Interrupted())
    assert not any(map(alive, children()))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the process that starts the workers was killed by SIGKILL"),
        ("raise ImportError('no such thing')", r"the process that starts the workers ended .*\(exit code 1\).*ImportError: no such thing"),
    ],
)
def test_a_fork_server_that_always_dies_is_named(code: str, said: str, modules: Path, job: ReloadJob) -> None:
    (modules / "first_imported.py").write_text(code)
    outcome = execute(job, Listener())
    assert isinstance(outcome, Failed)
    assert re.match(said, outcome.cause)


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.skipif(not LINUX, reason="the kernel has no prctl"))]
)
def test_a_fork_server_ends_with_its_command_while_it_imports(signum: int, tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text(f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); {SLEEP}")
    code = f"""
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(tmp_path)!r})
from compresslab.runner import processes, server_process
server_process.PRELOAD[:] = ["slow_to_import"]
with processes.Worker(Path({str(tmp_path)!r}) / "log") as worker:
    worker.start(print, None)
"""
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert soon(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    command.send_signal(signum)
    command.wait(timeout=5)
    assert soon(lambda: not alive(int((tmp_path / "pid").read_text())), 2)


@pytest.mark.skipif(not LINUX, reason="the kernel has no prctl")
def test_a_fork_server_that_is_killed_takes_its_workers_with_it_and_is_named(
    job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_process.fork_server(job.log)

    class KillServer(Listener):
        def progress(self, share: float, text: str, amount: object = None) -> None:
            server_process._servers[0].process.kill()

    monkeypatch.setattr(executors, "work", hold)
    outcome = execute(job, KillServer())
    assert isinstance(outcome, Failed)
    assert outcome.cause.startswith("the process that starts the workers was killed by SIGKILL")
    assert soon(lambda: not any(map(alive, children())), 2)
    monkeypatch.setattr(executors, "work", fine)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert server.folders()
    assert not any(folder.exists() for folder in server.folders())


def fine(_: ReloadJob, pipe: Connection) -> None:
    pipe.send(Done(1.0, 0.0, 0, ""))


def test_a_worker_may_start_processes_of_its_own(
    job: ReloadJob, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`multiprocessing` refuses that to daemons, and vLLM starts its engines so."""
    monkeypatch.setattr(executors, "work", done)
    assert execute(job, Listener()) == Done(1.0, 0.0, 0, "")
    assert len(children()) == STARTED
