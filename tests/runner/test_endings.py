"""Every ending of a worker has a named cause."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
from pathlib import Path

import pytest

from compresslab.errors import disk_trouble
from compresslab.machine import control_groups
from compresslab.records.compute import PROCESSOR
from compresslab.runner import endings
from compresslab.runner import processes as executors
from compresslab.runner.endings import Kills, before, kernel_kills, last_line, why_it_ended
from compresslab.runner.messages import Failed, ReloadJob, Share
from compresslab.runner.processes import Listener, execute


@pytest.mark.parametrize(
    ("earlier", "now", "said"),
    [
        (Kills(1, 1, 5), Kills(2, 3, 6), "the kernel did it because the memory of its control group ran out"),
        (Kills(1, 1, 5), Kills(2, 1, 6), "the kernel did it because the machine's memory ran out"),
        (Kills(1, None, 5), Kills(2, None, 6), "memory ran out, the machine's or that of its control group"),
        (Kills(1, 1, 5), Kills(1, 1, 6), "the kernel killed a process for lack of memory meanwhile, possibly this one"),
        (Kills(None, None, 5), Kills(None, None, 6), "the kernel killed a process for lack of memory meanwhile, possibly this one"),
        (Kills(1, 1, 5), Kills(1, 1, 5), "it was not the kernel for lack of memory"),
        (Kills(None, None, None), Kills(None, None, None), "the system does that when memory runs out"),
    ],
)
def test_the_kernel_says_whether_memory_was_the_cause(
    earlier: Kills, now: Kills, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "kernel_kills", lambda: now)
    cause = why_it_ended(-signal.SIGKILL, before(tmp_path / "log")._replace(kills=earlier))
    assert cause.startswith("its process was killed by SIGKILL")
    assert said in cause
    assert "ontrol group" not in cause or "control group" in said


@pytest.mark.parametrize(
    ("groups", "file", "text", "count"),
    [
        ("0::/job/one", "job/one/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", (2, 3)),
        ("0::/host/path", "memory.events", "oom 5\noom_kill 4\n", (4, 5)),
        ("3:cpu,memory:/job\n0::/", "memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", (7, None)),
        ("3:memory:/host/path", "memory/memory.oom_control", "oom_kill 1\n", (1, None)),
        ("0::/", "elsewhere", "", (None, None)),
        ("0::/", "memory.events", "oom_kill many\n", (None, None)),
    ],
)
def test_counters_of_control_groups_are_read(
    groups: str, file: str, text: str, count: tuple[int | None, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groups" / file).parent.mkdir(parents=True)
    (tmp_path / "groups" / file).write_text(text)
    (tmp_path / "own").write_text(groups + "\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 11\n")
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "CGROUP_OF_THIS", tmp_path / "own")
    monkeypatch.setattr(endings, "KERNEL_COUNTERS", tmp_path / "vmstat")
    assert kernel_kills() == Kills(*count, 11)


def test_a_system_without_counters_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((control_groups, "CGROUPS"), (control_groups, "CGROUP_OF_THIS"), (endings, "KERNEL_COUNTERS")):
        monkeypatch.setattr(module, name, tmp_path / "nowhere")
    assert kernel_kills() == Kills(None, None, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo\n\n", "two"),
        ("loading 10%\rloading 90%\r", "loading 90%"),
        ("it said this\nFatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File x\n", "it said this"),
        ("Fatal Python error: Segmentation fault\n\n  File x\n", "Fatal Python error: Segmentation fault"),
        ("\x1b[31mred\u202e\n", "[31mred"),
        ("", ""),
    ],
)
def test_the_last_line_is_what_the_library_said(text: str, line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of the run before\n" + text)
    assert last_line(log, len("of the run before\n")) == line


def test_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff" * 2**20 + b"\nlast\n")
    assert last_line(tmp_path / "log") == "last"
    assert last_line(tmp_path / "none") == ""


def test_a_lack_of_memory_that_aborts_is_named(tmp_path: Path) -> None:
    known = before(tmp_path / "log")
    (tmp_path / "log").write_text("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    assert "killed by SIGABRT: not enough memory. The last line" in why_it_ended(-signal.SIGABRT, known)
    assert "its disk may be full" in why_it_ended(-signal.SIGBUS, known)
    assert "killed by signal 40" in why_it_ended(-40, known)


def in_work(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The cause of a worker in which the job itself is this code."""
    (tmp_path / "job_of_a_test.py").write_text(WORK.format(what=what))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("job_of_a_test")
    monkeypatch.setattr(executors, "work", module.run)
    log = tmp_path / "logs" / "node.log"
    outcome = execute(ReloadJob(tmp_path, tmp_path / "probe.pt", log, Share(1, {}), PROCESSOR), Listener())
    sys.modules.pop("job_of_a_test")
    assert isinstance(outcome, Failed)
    return outcome.cause


WORK = """
import ctypes, os, signal, sys
from compresslab.runner import worker
def run(job, pipe):
    def execute(job, pipe):
        {what}
    worker._execute = execute
    worker.work(job, pipe)
"""


# The search of this pattern backtracks beyond the limit of its library, for which tokenizers has no error.
PANICS = "import tokenizers as t; t.normalizers.Replace(t.Regex('(x+x+)+y'), '').normalize_str('x' * 60)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        (PANICS, "a native library panicked: Onig: Regex search error: retry-limit-in-match over (the traceback is in"),
        ("import tokenizers; tokenizers.Regex('(a')", "(the traceback is in"),
        ("sys.exit('no more')", "a library ended its process (SystemExit: no more; the traceback is in"),
        ("os.kill(os.getpid(), signal.SIGINT)", "it was interrupted (SIGINT). Run again"),
        ("print('it said this', flush=True); ctypes.string_at(0)", "killed by SIGSEGV: a native library crashed. The last line of"),
        ("print('it said this', flush=True); os.abort()", "killed by SIGABRT: a native library crashed. The last line of"),
        ("print('it said this', flush=True); os._exit(3)", "ended without a report (exit code 3). The last line of"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "it was interrupted (SIGTERM). Run again"),
        ("os.kill(os.getpid(), signal.SIGHUP)", "it was interrupted (SIGHUP). Run again"),
        ("os.kill(os.getpid(), signal.SIGUSR1)", "its process was killed by SIGUSR1. Run again"),
    ],
)
def test_a_worker_that_ends_in_any_way_is_told(what: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = in_work(what, monkeypatch, tmp_path)
    assert said in cause
    assert "it said this" in cause or "it said this" not in what
    if "crashed" in said:
        assert "Fatal Python error" in (tmp_path / "logs" / "node.log").read_text()


@pytest.mark.slow
def test_a_full_disk_of_the_store_is_told_whatever_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's device that is always full stands for the log; a folder that cannot be made for that of the logs."""
    if not Path("/dev/full").exists():
        pytest.skip("the system has no device that is always full")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "node.log").symlink_to("/dev/full")
    cause = in_work("raise RuntimeError('PytorchStreamWriter failed: No space left on device')", monkeypatch, tmp_path)
    assert cause.startswith("no space is left on the disk of ")
    assert "free some" in cause


def test_the_disk_behind_an_error_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = RuntimeError("it failed")
    hidden.__context__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file"))
    assert disk_trouble(hidden, tmp_path) == (
        f"no space is left on the disk of {tmp_path / 'file'}; free some (`compresslab ls` tells what a store holds) and run again"
    )
    torchs = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 832 vs 726")
    assert disk_trouble(torchs, tmp_path).startswith(f"no space is left on the disk of {tmp_path}; free")
    assert "the quota of the disk" in disk_trouble(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path)
    assert "is read-only; make it writable" in disk_trouble(OSError(errno.EROFS, "Read-only file system"), tmp_path)
    for other in (ValueError("odd"), FileNotFoundError(errno.ENOENT, "No such file", "x"), RuntimeError("write failed")):
        assert disk_trouble(other, tmp_path) == ""
    monkeypatch.setattr("compresslab.errors._is_full", lambda folder: folder == tmp_path)
    assert f"no space is left on the disk of {tmp_path} (RuntimeError: write failed)" in disk_trouble(
        RuntimeError("write failed"), tmp_path
    )
    assert disk_trouble(ValueError("odd"), tmp_path) == ""


@pytest.mark.parametrize("path", ["x" * 300, "null\0", "none/none"])
def test_a_path_that_cannot_be_looked_at_hides_no_cause(path: str, tmp_path: Path) -> None:
    """A name that is too long raises where a folder without permission does, and for the superuser, too."""
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / path))
    assert disk_trouble(error, tmp_path / path / "logs").startswith("no space is left on the disk of ")
    assert disk_trouble(ValueError("odd"), tmp_path / path) == ""
