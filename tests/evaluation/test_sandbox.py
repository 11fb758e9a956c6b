"""Programs of a model: their verdicts, attacks, and what happens where there is no sandbox."""

# ruff: noqa: ARG001 - fixtures that are asked for what they do

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import sandbox_attacks
from faults.sandbox_programs import ATTACKS

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation.sandbox import bubblewrap, programs, seccomp
from compresslab.evaluation.sandbox.code_eval import CodeEval, own_code_eval, pass_at_k
from compresslab.evaluation.sandbox.programs import passes

pytestmark = pytest.mark.slow

ADD = "def add(a, b):\n    return a + b\n"
sandboxed = pytest.mark.skipif(bool(programs.refusal()), reason=f"no sandbox here: {programs.refusal()}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap exists on Linux only")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing is known of the system yet, nor afterwards."""
    caches = (programs.check, programs._wrong, bubblewrap.refusal)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def no_bubblewrap(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@sandboxed
@pytest.mark.parametrize("run_as", [sandbox_attacks.attack_all, sandbox_attacks.attack_all_as_nobody])
def test_no_attack_gets_out_or_passes_and_no_honest_program_fails(run_as: Callable[..., list[sandbox_attacks.Result] | None]) -> None:
    if run_as is sandbox_attacks.attack_all_as_nobody and os.geteuid() != 0:
        pytest.skip("only root can become nobody; the other half of this test ran as the present user")
    results = run_as(quick=True)
    if results is None:
        pytest.skip("nobody can run no interpreter here")
    assert {result.name: result.problems for result in results if result.problems} == {}
    assert len(results) > 65


@sandboxed
@pytest.mark.parametrize("name", ["sleep", "memory in many processes", "many files", "stop the supervisor"])
def test_what_takes_time_or_memory_ends_at_its_limit(name: str) -> None:
    began = time.monotonic()
    (program,) = (one for one in ATTACKS if one.name == name)
    with sandbox_attacks.host() as host:
        assert sandbox_attacks.attack(program, host).problems == []
    assert time.monotonic() - began < 20


@sandboxed
def test_an_attack_that_succeeds_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of attacks can fail: with the host's temporary folder in the sandbox, and its network."""
    isolation = bubblewrap._isolation()
    monkeypatch.setattr(bubblewrap, "_isolation", lambda: [option for option in isolation if option != "--unshare-net"])
    visible = bubblewrap._visible
    with sandbox_attacks.host() as host:
        shared = ["--bind", str(host.folder), str(host.folder)]
        monkeypatch.setattr(bubblewrap, "_visible", lambda lend: _with(visible(lend), shared))
        failing = (
            "a server on the host's loopback",
            "a socket in the host's /tmp",
            "write into the host's /tmp",
            "an abstract socket of the host",
        )
        results = [sandbox_attacks.attack(one, host) for one in ATTACKS if one.name in failing]
    assert [len(result.problems) for result in results] == [2, 2, 2, 2]  # a verdict, and what was reached


def _with(options: Iterator[str], more: list[str]) -> list[str]:
    """The options with more before the root is made read-only."""
    made = list(options)
    place = made.index("--remount-ro")
    return [*made[:place], *more, *made[place:]]


def test_every_architecture_checks_the_same_calls_and_no_number_stands_twice() -> None:
    for numbers in seccomp.MACHINES.values():
        assert len(seccomp.program(numbers)) % 8 == 0
        assert set(numbers.checked) == set(seccomp.MACHINES["x86_64"].checked)
        assert len({**seccomp.COMMON, **numbers.denied, **numbers.checked}.values()) == len(
            {*seccomp.COMMON.values(), *numbers.denied.values(), *numbers.checked.values()}
        )


@linux
def test_without_bubblewrap_programs_are_refused_with_what_to_install(no_bubblewrap: None) -> None:
    with pytest.raises(BadInput, match=r"bubblewrap is not installed; install bubblewrap .*apt-get install bubblewrap.*--trust-code"):
        passes("pass")


@linux
def test_an_old_bubblewrap_is_refused(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "bwrap", "echo --clearenv --file --new-session --seccomp")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "lacks --die-with-parent, --size" in programs.refusal()


@linux
@pytest.mark.parametrize(
    ("says", "status", "refusal"),
    [
        ("bwrap: Creating new namespace failed: Operation not permitted", 1, "allow unprivileged user namespaces"),
        ("bwrap: execvp python: Permission denied", 1, "let every user read"),
        ("", 40, r"a wrong program passes"),
        ("", 41, r"a right program does not pass"),
        ("", 137, r"the sandbox failed \(exit status 137\)"),
    ],
)
def test_a_sandbox_that_fails_is_no_wrong_answer(
    says: str,
    status: int,
    refusal: str,
    fresh: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    help_text = "if [ $1 = --help ]; then echo " + " ".join(bubblewrap.OPTIONS) + "; exit; fi"
    _program(tmp_path / "bwrap", f"{help_text}\necho '{says}' >&2; exit {status}")
    tmp_path.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_user", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BadInput, match=refusal):
        passes("pass")


@sandboxed
def test_a_sandbox_that_breaks_later_ends_the_evaluation(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes("pass")
    (tmp_path / "supervisor.py").write_text("raise OSError('broken')")
    monkeypatch.setattr(bubblewrap, "SUPERVISOR", tmp_path / "supervisor.py")
    with pytest.raises(RunFailed, match=r"the sandbox failed \(OSError: broken\)"):
        passes("pass")


@sandboxed
def test_a_program_ends_with_the_evaluation_that_is_killed() -> None:
    code = "from compresslab.evaluation.sandbox.programs import passes; passes('import time; time.sleep(600)', 600)"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(sandbox_attacks.ROOT)})
    _until(lambda: any("/supervisor.py\x00600" in _command(pid) for pid in sandbox_attacks.descendants()))
    running = sandbox_attacks.descendants() - {process.pid}
    process.kill()
    process.wait()
    _until(lambda: not any("/supervisor.py\x00600" in _command(pid) for pid in running))


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within 20 s")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""


@linux
def test_an_environment_that_holds_the_home_is_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(sys.prefix) / "home"))
    if bubblewrap.shutil.which("bwrap") is None or Path(sys.prefix) not in bubblewrap.interpreter_folders():
        pytest.skip("needs bubblewrap, and an interpreter outside of /usr")
    assert "which programs must not see" in bubblewrap.refusal()


@pytest.mark.parametrize(
    ("program", "good"),
    [
        (ADD + "assert add(2, 3) == 5", True),
        (ADD + "assert add(2, 3) == 6", False),
        ("import sys\nsys.exit(0)", False),
        ("import os\nos._exit(0)", False),
        ("import time\ntime.sleep(60)", False),
        ("open('large', 'wb').write(bytes(2**26))", False),
        ("import os\nassert os.listdir() == [] and 'SECRET' not in os.environ", True),
    ],
)
def test_trusted_programs_need_no_sandbox(program: str, good: bool, no_bubblewrap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert passes(program, 1.5, trusted=True) is good


def test_trusted_programs_leave_no_child_behind(tmp_path: Path, no_bubblewrap: None) -> None:
    mark = tmp_path / "mark"
    assert passes(f"import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    open({str(mark)!r}, 'w').write('here')", 5, trusted=True)
    time.sleep(1.3)
    assert not mark.exists()


def test_pass_at_k_is_the_chance_that_one_of_k_passes() -> None:
    assert pass_at_k([True, False, False, False], 1) == pytest.approx(0.25)
    assert pass_at_k([True, False, False, False], 2) == pytest.approx(0.5)
    assert pass_at_k([True] * 4, 2) == 1


def test_lm_evals_tasks_get_this_metric_for_the_hubs() -> None:
    import evaluate

    with own_code_eval(trusted=True):
        metric = evaluate.load("code_eval")
    assert isinstance(metric, CodeEval)
    scores, _ = metric.compute(references=["assert add(2, 3) == 5"], predictions=[[ADD, ADD.replace("+", "*")]], k=[1, 2])
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("statuses", "shortages", "verdict"),
    [
        ([40], "ab", True),
        ([41], "aa", False),
        ([43, 43], "aaaa", False),  # it kills itself
        ([43, 40], "abbb", True),
        ([41, 40], "abbb", True),
        ([41, 43], "abbc", None),
        ([43, 41], "abbb", False),
    ],
)
def test_what_the_kernel_kills_or_refuses_is_no_wrong_answer(
    statuses: list[int], shortages: str, verdict: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, counters = iter(statuses), iter(shortages)
    monkeypatch.setattr(programs, "_status", lambda *_: next(left))
    monkeypatch.setattr(programs, "shortages", lambda: (next(counters),))
    if verdict is None:
        with pytest.raises(RunFailed, match="a program failed twice while the kernel ended processes"):
            passes("pass", trusted=True)
    else:
        assert passes("pass", trusted=True) is verdict
    assert not list(left)


def test_a_program_that_keeps_its_supervisor_from_its_work_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(said: bytes) -> bool:
        def run(*_: object) -> None:
            raise subprocess.TimeoutExpired("bwrap", 70, stderr=said)

        monkeypatch.setattr(programs, "_trusted", run)
        return passes("pass", trusted=True)

    assert not stuck(b"the program has started\n")
    with pytest.raises(RunFailed, match="the sandbox did not end within 70 s"):
        stuck(b"")


@linux
def test_a_link_to_the_interpreter_is_shown_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert tmp_path not in bubblewrap.interpreter_folders()
    assert bubblewrap.interpreter_files()[0] == tmp_path / "python"
    assert bubblewrap._file(tmp_path / "python")[0] == "--symlink"


@linux
def test_a_home_behind_a_link_is_refused_too(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if bubblewrap.shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    (tmp_path / "home").symlink_to("/usr/share")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "/usr, which programs need, holds" in bubblewrap.refusal()


@sandboxed
def test_a_sandbox_that_was_busy_is_asked_again(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status = programs._status

    def busy(*_: object) -> int:
        raise RunFailed("the sandbox did not end within 70 s")

    monkeypatch.setattr(programs, "_status", busy)
    assert "did not end" in programs.refusal()
    monkeypatch.setattr(programs, "_status", status)
    assert programs.refusal() == ""


@sandboxed
def test_a_program_sees_the_variables_that_the_documentation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSLAB_SECRET", "1")
    seen = sorted([*bubblewrap.ENVIRONMENT, "PWD"])
    assert len(seen) == 8
    assert passes(f"import os\nassert sorted(os.environ) == {seen}")
