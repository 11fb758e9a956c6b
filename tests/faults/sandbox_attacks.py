"""Attacks on the sandbox, as the present user and as nobody: `python tests/faults/sandbox_attacks.py` prints the table, in a minute or two.

It counts escapes (a server of ours was reached, a file appeared outside), false verdicts, processes and files left. Exit status 1 if there
is any. `--quick` leaves out what takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from sandbox_programs import ATTACKS, PROGRAMS, Program  # noqa: E402

NOBODY = 65534
SUBREAPER = 36  # of prctl: orphans become children of this process, where they are counted


class Result(NamedTuple):
    """What one program came to. `problems` is empty if all is as it should be."""

    name: str
    seconds: float
    problems: list[str]


class Host:
    """What attackers look for outside: servers, files, modules, variables."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.marker = folder, f"escaped-{os.getpid()}"
        self.servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        if sys.platform == "linux":
            self.servers[1].bind(str(folder / "server"))
            self.servers[2].bind(f"\0{self.marker}")
            (folder / "server").chmod(0o777)
        for server in self.servers[1:]:
            server.listen()
        for place in ("cwd", "path"):
            (folder / place).mkdir()
            (folder / place / f"planted_in_{place}.py").write_text("")
        (folder / "secret").write_text("secret")
        folder.chmod(0o777)
        (folder / "cwd").chmod(0o777)

    def fill(self, text: str) -> str:
        """A program with the places of this host."""
        values = {
            "port": self.servers[0].getsockname()[1],
            "socket": self.folder / "server",
            "abstract": self.marker,
            "folder": self.folder,
            "home": Path.home(),
            "marker": self.marker,
            "parent": os.getpid(),
            "group": os.getpgrp(),
        }
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", str(value))
        return text

    def reached(self) -> list[str]:
        """What of the outside a program has reached since the last call."""
        problems = []
        for server in select.select(self.servers, [], [], 0)[0]:
            server.accept()[0].close()
            problems.append("reached a server outside")
        places = (self.folder, self.folder / "cwd", Path.home(), Path(tempfile.gettempdir()), Path("/"), Path(sys.prefix))
        for place in places:
            with contextlib.suppress(OSError):
                for file in place.glob(f"{self.marker}*"):
                    problems.append(f"left {file}")
                    file.unlink(missing_ok=True)
        return problems


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """A host to attack; the working directory and variables of this process belong to it."""
    with tempfile.TemporaryDirectory(prefix="compresslab-attacks-") as folder:
        there, before = Host(Path(folder)), Path.cwd()
        os.environ.update(COMPRESSLAB_SECRET="secret", PYTHONPATH=f"{folder}/path:{os.environ.get('PYTHONPATH', '')}")
        os.chdir(there.folder / "cwd")
        try:
            yield there
        finally:
            os.chdir(before)
            del os.environ["COMPRESSLAB_SECRET"]
            os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(":")[2]
            for server in there.servers:
                server.close()


def descendants() -> set[int]:
    """Process ids of all processes that this one has started, orphans too."""
    parents = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def attack(program: Program, there: Host) -> Result:
    """Run one program in the sandbox and look at what it has done."""
    from compresslab.evaluation.sandbox.programs import passes

    before, began = descendants(), time.monotonic()
    try:
        passed = passes(there.fill(program.text), program.seconds)
        problems = [] if passed is program.passes else [f"verdict {'pass' if passed else 'fail'}"]
    except Exception as error:  # of the sandbox itself
        problems = [f"{type(error).__name__}: {error}"]
    seconds = time.monotonic() - began
    if left := descendants() - before:
        problems.append(f"left {len(left)} processes")
    return Result(program.name, seconds, [*problems, *there.reached()])


def programs(*, quick: bool) -> list[Program]:
    """All attacks and honest programs; `quick` leaves out what takes seconds."""
    with_numpy = subprocess.run([sys.executable, "-Ic", "import numpy"], capture_output=True, check=False).returncode == 0
    return [one for one in PROGRAMS if not (quick and one.slow) and (one.name != "numpy" or with_numpy)]


def attack_all(*, quick: bool) -> list[Result]:
    """The results of all programs, as the present user."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    with host() as there:
        results = [attack(one, there) for one in programs(quick=quick)]
        time.sleep(1.2)  # a child that writes later would have written by now
        return [*results, Result("nothing appeared later", 1.2, there.reached())]


def reachable_python() -> str | None:
    """An interpreter that nobody can run: this one, or the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if (
                subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, check=False).returncode
                == 0
            ):
                return python
    return None


def attack_all_as_nobody(*, quick: bool) -> list[Result] | None:
    """The same as nobody, for root; `None` if nobody can run no interpreter."""
    python = reachable_python()
    if python is None:
        return None
    with tempfile.TemporaryDirectory(prefix="compresslab-attacks-") as home:
        # The package is copied to where nobody can read it.
        Path(home).chmod(0o755)
        shutil.copytree(ROOT / "compresslab", f"{home}/compresslab", ignore=shutil.ignore_patterns("__pycache__", "data"))
        (Path(home) / "tests" / "faults").mkdir(parents=True)
        for file in Path(__file__).parent.glob("sandbox_*.*"):
            shutil.copy(file, f"{home}/tests/faults")
        (Path(home) / "home").mkdir()
        os.chown(f"{home}/home", NOBODY, NOBODY)
        command = [python, "-B", f"{home}/tests/faults/sandbox_attacks.py", "--json", *(["--quick"] if quick else [])]
        environment = {"HOME": f"{home}/home", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, user=NOBODY, group=NOBODY, extra_groups=[], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return [Result(*row) for row in json.loads(done.stdout)]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out what takes seconds")
    parser.add_argument("--json", action="store_true", help="as the present user only, as JSON")
    options = parser.parse_args()
    from compresslab.evaluation.sandbox.programs import refusal

    if problem := refusal():
        print(f"no sandbox here, so nothing is attacked: {problem}", file=sys.stderr)
        return 2
    results = attack_all(quick=options.quick)
    if options.json:
        print(json.dumps(results))
        return 0
    runs = {"root" if os.geteuid() == 0 else "user": results}
    if os.geteuid() == 0 and (as_nobody := attack_all_as_nobody(quick=options.quick)) is not None:
        runs["nobody"] = as_nobody
    for name, done in runs.items():
        for result in done:
            print(f"{name:<7} {result.name:<52} {result.seconds:6.2f} s  {'; '.join(result.problems) or 'as it should be'}")
    wrong = {name: sum(bool(result.problems) for result in done) for name, done in runs.items()}
    attacks = sum(program in ATTACKS for program in programs(quick=options.quick))
    for name, done in runs.items():
        print(f"{name}: {attacks} attacks and {len(done) - attacks - 1} honest programs, {wrong[name]} not as they should be")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
