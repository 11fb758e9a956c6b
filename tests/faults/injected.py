"""File calls that fail, write less than they were told, or end the process, at every call of a piece of work.

`injector.c` is compiled and loaded before libc, so that it strikes calls of native libraries, too. Every point is a process of its own.
After it, what is there must be whole or not look so, and the same work in the same folder must end as if nothing had happened.

    python tests/faults/injected.py [--every K] [--only NAME]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import CompresslabError

KINDS = {"the process is killed": 1, "the disk is full": 2, "the disk fails once": 3, "half is written": 4}
HERE = Path(__file__).parent
REPORT = HERE.parent.parent / "reports" / "smollm2-quickstart"
SECONDS = 60
FINISHED, REFUSED, TRACEBACK = 0, 3, 4


class Work(NamedTuple):
    """A piece of work in a folder, and what is wrong with what is there: after a fault, and after it was done to its end."""

    name: str
    do: Callable[[Path], None]
    wrong: Callable[[Path], str]
    unfinished: Callable[[Path], str]


class Found(NamedTuple):
    """How many calls were struck by a kind of fault, and what was wrong."""

    name: str
    kind: str
    points: int
    wrong: list[str]


def library(folder: Path) -> Path | None:
    """The compiled injector; `None` where there is no compiler, or no such way to load it."""
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        return None
    built = folder / "injector.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "injector.c"), "-ldl"]
    return built if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None


def works() -> list[Work]:
    """Commits, journals, checkpoints and reports."""
    import torch

    from compresslab.evaluation.engines.journal import Journal
    from compresslab.report.html import write
    from compresslab.steps.training.checkpoints import Checkpoints, TrainingState
    from compresslab.store.store import Store
    from compresslab.studies.read_study import read_study

    key, files = "a" * 24, {"model/weights": b"w" * 3000, "items": b"i" * 500}
    record = read_study(REPORT)

    def commit(root: Path) -> None:
        store = Store(root)
        with store.leases.waited(key), store.stage(key) as staged:
            (staged / "model").mkdir()
            for name, data in files.items():
                (staged / name).write_bytes(data)
            store.commit(key, staged)

    def half_commit(root: Path) -> str:
        store = Store(root)
        whole = not store.has(key) or all((store.folder(key) / name).read_bytes() == data for name, data in files.items())
        return "" if whole else "a result looks whole and is not"

    def keep_journal(root: Path) -> None:
        journal = Journal(root / "journals", [b"work"])
        for number in range(len(journal.answers), 4):
            journal.add(number, [number, -number])

    def half_journal(root: Path, length: int | None = None) -> str:
        answers = Journal(root / "journals", [b"work"]).answers
        return "" if answers == {number: [number, -number] for number in range(length or len(answers))} else f"the journal reads {answers}"

    def train(root: Path) -> None:
        checkpoints = Checkpoints(root / "checkpoints", {"seed": 0})
        state = checkpoints.load(lambda _: None)
        for step in range(state.step + 1 if state else 1, 4):
            checkpoints.save(TrainingState(step, [1.0], [], {"weights": torch.full((500,), float(step))}))

    def half_checkpoint(root: Path) -> str:
        state = Checkpoints(root / "checkpoints", {"seed": 0}).load(lambda _: None)
        return "" if state is None or bool((state.tensors["weights"] == state.step).all()) else "a checkpoint has other weights"

    def lost_checkpoint(root: Path) -> str:
        state = Checkpoints(root / "checkpoints", {"seed": 0}).load(lambda _: None)
        return "" if state is not None and state.step == 3 else "the last checkpoint is lost"

    def write_page(root: Path) -> None:
        write(record, root / "page")

    def half_page(root: Path) -> str:
        if not (root / "page" / "study.json").exists():
            return ""
        return "" if read_study(root / "page") == record else "the page's record is another one"

    def no_page(root: Path) -> str:
        page = root / "page" / "index.html"
        whole = page.is_file() and page.read_text().rstrip().endswith("</html>")
        return half_page(root) if whole and (root / "page" / "study.json").is_file() else "the page is not there, or not whole"

    return [
        Work("a commit", commit, half_commit, lambda root: "" if Store(root).has(key) else "the result is not there"),
        Work("a journal", keep_journal, half_journal, lambda root: half_journal(root, 4)),
        Work("checkpoints", train, half_checkpoint, lost_checkpoint),
        Work("a report", write_page, half_page, no_page),
    ]


def strike(injector: ctypes.CDLL, work: Work, every: int) -> list[Found]:
    """Strike every k-th call of a piece of work by every kind of fault."""
    with tempfile.TemporaryDirectory(prefix="injected-") as scratch:
        calls = _calls(injector, work, Path(scratch))
    assert calls > 3, f"the injector met {calls} file calls of {work.name}"
    found = []
    for kind, number in KINDS.items():
        points = range(1, calls + 1, every)
        wrong: list[str] = []
        for at in points:
            with tempfile.TemporaryDirectory(prefix="injected-") as scratch:
                if problem := _struck(injector, work, Path(scratch), number, at):
                    wrong.append(f"call {at}: {problem}")
        found.append(Found(work.name, kind, len(points), wrong))
    return found


def _calls(injector: ctypes.CDLL, work: Work, folder: Path) -> int:
    """How many calls the work makes, in a process of its own, since native libraries keep threads, which a fork loses."""
    told = folder.with_name(f"{folder.name}-calls")
    counted = work._replace(do=lambda root: (work.do(root), told.write_text(str(injector.fault_calls())))[0])
    assert os.waitstatus_to_exitcode(_forked(lambda: injector.fault_arm(str(folder).encode(), 0, 0), counted, folder)) == FINISHED
    calls = int(told.read_text())
    told.unlink()
    return calls


def _struck(injector: ctypes.CDLL, work: Work, folder: Path, kind: int, at: int) -> str:
    """What is wrong after a fault; empty if nothing is."""
    status = _forked(lambda: injector.fault_arm(str(folder).encode(), kind, at), work, folder)
    if os.WIFSIGNALED(status):
        if kind != 1 or os.WTERMSIG(status) != signal.SIGKILL:
            return f"it ended by signal {os.WTERMSIG(status)}"
    elif os.WEXITSTATUS(status) == TRACEBACK:
        return "it ended by an exception that is not explained"
    if problem := work.wrong(folder):
        return problem
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FINISHED and (problem := work.unfinished(folder)):
        return f"it said that it was done, and {problem}"
    if os.waitstatus_to_exitcode(_forked(lambda: None, work, folder)) != FINISHED:
        return "the same work could not be done afterwards"
    return work.unfinished(folder)


def _forked(before: Callable[[], object], work: Work, folder: Path) -> int:
    """Do the work in a process of its own; its status."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        code = TRACEBACK
        try:
            before()
            work.do(folder)
            code = FINISHED
        except Exception as error:
            code = REFUSED if isinstance(error, OSError | CompresslabError) or "os error" in str(error) else TRACEBACK
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Print the table; the process starts itself anew with the injector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="strike every K-th call")
    parser.add_argument("--only", default="", help="strike only works whose names have this in them")
    given = parser.parse_args()
    if "LD_PRELOAD" not in os.environ:
        with tempfile.TemporaryDirectory(prefix="injector-") as scratch:
            if (built := library(Path(scratch))) is None:
                print("injected faults: not tried, since there is no compiler here")
                return
            environment = os.environ | {"LD_PRELOAD": str(built), "OMP_NUM_THREADS": "1"}
            raise SystemExit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)
    injector, bad = ctypes.CDLL(None), 0
    for work in works():
        if given.only not in work.name:
            continue
        for found in strike(injector, work, given.every):
            bad += len(found.wrong)
            print(f"{found.name:>12}, {found.kind:<22} struck at {found.points:>4} calls, wrong: {len(found.wrong)}", flush=True)
            for line in found.wrong[:5]:
                print(f"    {line}")
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
