"""The sandbox of programs that a model wrote: bubblewrap's command line, and why it cannot be used here.

Inside, a program sees the system's libraries and the interpreter's folders, read-only, two small temporary folders, and no other process,
user, network or variable. It has no capability, and no descriptor but /dev/null.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import RunFailed
from compresslab.evaluation.sandbox import seccomp
from compresslab.evaluation.sandbox.supervisor import STARTED, WRITABLE

SUPERVISOR = Path(__file__).with_name("supervisor.py")
MEMORY = 2**30  # bytes of all processes together, and of each one's address space
PROCESSES, FILES = 64, 4096  # threads count as processes
FOLDER_BYTES = 2**26  # of each of the two temporary folders
NOBODY = 65534  # whom programs run as where root runs this: no limit of processes holds for root
INSIDE = 1000  # user and group id as the program sees them

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
OPTIONS = ("--clearenv", "--die-with-parent", "--file", "--new-session", "--seccomp", "--size", "--unshare-cgroup-try")
# The number of threads of numerical libraries, which would otherwise start one for each processor.
ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},
    # An arena of the C library takes 64 MB of addresses, and each thread would have its own.
    "MALLOC_ARENA_MAX": "2",
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
GET = "install bubblewrap 0.8 or later (apt-get install bubblewrap, dnf install bubblewrap, or conda install -c conda-forge bubblewrap)"
ALLOW = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces=10000; on Ubuntu 24 an AppArmor profile for bwrap, or "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container an administrator must allow them, e.g. "
    "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
)


class Ended(NamedTuple):
    """How a supervisor ended: its exit status (negative for a signal), and what it or bubblewrap printed."""

    status: int
    said: str


@functools.cache
def refusal() -> str:
    """Why bubblewrap cannot be used on this system, and what to do; empty if nothing speaks against it. Runs no program of a model.

    Raises:
        RunFailed: it does not answer; asked again later, it may.
    """
    if sys.platform != "linux":
        return "bubblewrap exists on Linux only; evaluate on Linux"
    if seccomp.machine() is None:
        return f"the system calls of this processor ({os.uname().machine}) are not known; evaluate on x86_64 or aarch64"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return f"bubblewrap is not installed; {GET}"
    try:
        known = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as stuck:
        raise RunFailed(f"{bwrap} --help did not end within {stuck.timeout:.0f} s") from stuck
    except OSError as error:
        return f"{bwrap} cannot be run ({error}); {GET}"
    if lacking := [option for option in OPTIONS if option not in known.stdout + known.stderr]:
        return f"{bwrap} lacks {', '.join(lacking)}; {GET}"
    private = [Path(tempfile.gettempdir())]
    with contextlib.suppress(RuntimeError):  # there is none
        private.append(Path.home())
    for folder in [*map(Path, SYSTEM), *interpreter_folders()]:
        if held := [path for path in private if path.resolve().is_relative_to(folder.resolve())]:
            return f"the folder {folder}, which programs need, holds {held[0]}, which programs must not see; use another environment"
    return ""


def run(program: bytes, seconds: float, patience: float) -> Ended:
    """Run a program in the sandbox, under its supervisor.

    Args:
        program: its source. seconds: its wall time. patience: the further seconds that the sandbox may take.

    Raises:
        OSError: bubblewrap cannot be started. TimeoutExpired: it did not end.
    """
    bwrap = shutil.which("bwrap") or "bwrap"
    with ExitStack() as opened:
        descriptors: list[int] = []

        def lend(descriptor: int) -> str:
            opened.callback(os.close, descriptor)
            descriptors.append(descriptor)
            return str(descriptor)

        command = [bwrap, *_isolation(), *_visible(lend), "--seccomp", lend(_filter())]
        command += ["--", sys.executable, "-I", "-B", "/supervisor.py", str(seconds), str(MEMORY), str(_process_limit()), str(FILES)]
        user, setpriv = _user(), shutil.which("setpriv")
        if user is not None and setpriv:
            # A program of its own, since changing the user in this process's child needs a fork, which copies the tables of all its memory.
            opening = _opening()
            outer = [bwrap, *opening, "--"] if opening else []
            command, user = [*outer, setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", *command], None
        return start(command, program, seconds + patience, descriptors, user=user)


def start(
    command: Sequence[str], program: bytes, timeout: float, descriptors: Sequence[int] = (), *, user: int | None = None, folder: str = "/"
) -> Ended:
    """Run a supervisor to its end, with the program as its input.

    Raises:
        OSError: the command cannot be started. TimeoutExpired: it did not end in time; it is killed.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        pass_fds=descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,  # in the session of the worker, so that it ends with the worker
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        _, said = process.communicate(program, timeout)
    finally:
        end(process)
    return Ended(process.returncode, said.replace(STARTED, b"").decode(errors="replace").strip())


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a supervisor's process group, also if the supervisor has ended: outside of a sandbox, processes of the program may be left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS denies it if only zombies are left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stderr):
        if stream is not None and not stream.closed:
            stream.close()


def interpreter_folders() -> list[Path]:
    """The folders that the interpreter and its packages need, without those inside of others or of the system's."""
    folders = {Path(prefix) for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *site.getsitepackages())}
    found: list[Path] = []
    for folder in sorted(folders):
        if folder.is_dir() and not any(folder.is_relative_to(other) for other in [*map(Path, SYSTEM), *found]):
            found.append(folder)
    return found


def interpreter_files() -> list[Path]:
    """What the interpreter's path leads over, link by link, outside of `interpreter_folders` and of the system's: a link in ~/bin."""
    shown = [*map(Path, SYSTEM), *interpreter_folders()]
    return [path for path in _links(Path(sys.executable)) if not any(path.is_relative_to(folder) for folder in shown)]


def _links(path: Path) -> Iterator[Path]:
    """The path, and what it links to, link by link."""
    yield path
    while path.is_symlink():
        path = Path(os.path.normpath(path.parent / path.readlink()))
        yield path


def _isolation() -> list[str]:
    spaces = ("user", "pid", "net", "ipc", "uts", "cgroup-try")
    return [
        *(f"--unshare-{space}" for space in spaces),
        *("--uid", str(INSIDE), "--gid", str(INSIDE), "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
    ]


def _visible(lend: Callable[[int], str]) -> Iterator[str]:
    """Options that make the file system, from empty."""
    for path in SYSTEM:
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        elif Path(path).is_dir():
            yield from ("--ro-bind", path, path)
    for path in SETTINGS:
        yield from ("--ro-bind-try", path, path)
    for folder in interpreter_folders():
        yield from ("--ro-bind", str(folder), str(folder))
    for file in interpreter_files():
        yield from _file(file)
    yield from ("--proc", "/proc", "--dev", "/dev")
    yield from ("--dev-bind", "/dev/null", "/dev/zero")  # mapped and shared, it is memory that belongs to no process
    for writable in WRITABLE:
        yield from ("--size", str(FOLDER_BYTES), "--tmpfs", writable)
    yield from ("--file", lend(os.open(SUPERVISOR, os.O_RDONLY)), "/supervisor.py")
    yield from ("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp")


def _file(path: Path) -> tuple[str, str, str]:
    """Options that show one file or link, and nothing beside it."""
    return ("--symlink", str(path.readlink()), str(path)) if path.is_symlink() else ("--ro-bind", str(path), str(path))


def _opening() -> list[str]:
    """Options of an outer bubblewrap of root's, in which others can reach the interpreter; none if they can already.

    An interpreter in root's home is the usual case: the home is closed to others. Inside, an empty folder with nothing but the interpreter
    lies over the closed one.
    """
    options = []
    folders = interpreter_folders()
    for folder in [*folders, *interpreter_files()]:
        closed = next((parent for parent in reversed(folder.parents) if not parent.stat().st_mode & 0o001), None)
        if closed is not None:
            hidden = [] if str(closed) in options else ["--tmpfs", str(closed)]
            parents = [parent for parent in reversed(folder.parents) if parent.is_relative_to(closed)]
            options += [*hidden, *(word for parent in parents for word in ("--dir", str(parent)))]
            options += ["--ro-bind", str(folder), str(folder)] if folder in folders else _file(folder)
    return ["--die-with-parent", "--dev-bind", "/", "/", *options] if options else []


def _filter() -> int:
    """A descriptor from which the seccomp filter can be read."""
    numbers = seccomp.machine()
    assert numbers is not None
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:  # far less than a pipe holds
        pipe.write(seccomp.program(numbers))
    return reading


def _user() -> int | None:
    """Whom bubblewrap is run as, where it is not the present user. In a container with one user only, its root is no root outside of it."""
    if os.geteuid() != 0:
        return None
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return NOBODY if any(int(first) <= NOBODY < int(first) + int(count) for first, _, count in ranges) else None


def _process_limit() -> int:
    """The limit of processes. Before Linux 5.14 those outside of the user namespace count, too."""
    release = os.uname().release.split("-")[0].split(".")
    if tuple(int(number) for number in release[:2]) >= (5, 14):
        return PROCESSES
    user = NOBODY if _user() is not None else os.getuid()
    return PROCESSES + sum(_threads(process) for process in Path("/proc").iterdir() if process.name.isdigit() and _owner(process) == user)


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


def _threads(process: Path) -> int:
    try:
        return sum(1 for _ in (process / "task").iterdir())
    except OSError:
        return 0
