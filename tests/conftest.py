"""What all tests share: the fast selection, one thread a process, the dtype that studies compute in, and the guard against emulation."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from guard import emulation
from selection import is_fast

LONGEST = ("tests/end_to_end/", "tests/steps/test_contract.py", "tests/runner/test_killed_workers.py", "tests/runner/", "tests/steps/")

# Before torch is imported: the models are tiny, and two threads that wait for each other beside other tests take far longer than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tests' models are made on the processor, so steps, workers and reloads must be there too. `benchmarks/gpu.py` tries an accelerator.
for hidden in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
    os.environ[hidden] = ""
# torch.compile keeps machine code under a key that does not know these instructions: code made with more of them gives NaN here.
if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"torchinductor-{getpass.getuser()}-{capability}"))
FINDINGS = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="tiny models of two architectures, no browser, no real model, nothing slow")
    parser.addoption("--compute", default="auto", choices=["auto", "float32", "bfloat16"], help="what the tests' studies compute in")


def pytest_configure(config: pytest.Config) -> None:
    """The first process says what to watch for; those of pytest-xdist inherit it, and share the processors among themselves.

    Under `nohup` SIGHUP is ignored, and behind `&` in a script SIGINT, also by what the tests start, and some test what these do.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="compresslab-tests-"))
        config.stash[FINDINGS] = folder / "findings.txt"
        emulation.prepare(config.stash[FINDINGS])
        _own_cache(folder / "cache")
    else:
        emulation.watch_workers()
        _take_share(int(config.workerinput["workerid"].removeprefix("gw")), config.workerinput["workercount"])


def pytest_unconfigure(config: pytest.Config) -> None:
    if (path := config.stash.get(FINDINGS, None)) is not None:
        shutil.rmtree(path.parent, ignore_errors=True)


def _own_cache(folder: Path) -> None:
    """A cache with what takes long from the user's, and with other locks: a test that measures does not wait for a study of the user's."""
    from compresslab.pins import cache_folder

    folder.mkdir()
    for name in ("wheels", "files", "machines"):
        (known := cache_folder() / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(known)
    os.environ["COMPRESSLAB_CACHE"] = str(folder)


def _take_share(number: int, count: int) -> None:
    """Only some of the processors for this process and the product's workers that it starts, which use all that they may."""
    if hasattr(os, "sched_setaffinity") and (share := sorted(os.sched_getaffinity(0))[number::count]):
        os.sched_setaffinity(0, share)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that two processes end at about the same time."""
    items.sort(key=lambda item: next((place for place, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST)))
    if config.getoption("--fast"):
        left_out = [item for item in items if not is_fast(item)]
        items[:] = [item for item in items if is_fast(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if "torch" in sys.modules:
        emulation.install()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if found(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if text := found(config):
        terminalreporter.section("emulated products of half precision that took more than a second", red=True)
        terminalreporter.write(text)


def found(config: pytest.Config) -> str:
    """What the guard wrote in any process; empty if every product was fast."""
    path = config.stash.get(FINDINGS, None)
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""


@pytest.fixture(scope="session")
def compute(pytestconfig: pytest.Config) -> str:
    """What the recipes of the tests' own studies say of `compute`."""
    return str(pytestconfig.getoption("--compute"))
