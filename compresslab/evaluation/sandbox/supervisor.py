"""The process that runs and judges one program of a model. It is process 1 of the sandbox (see `bubblewrap`); stdin is the program.

It is run as a script, by the interpreter alone, and imports nothing of this package. Arguments: seconds of wall time; bytes of memory of
all processes together; the limit of processes (0 for none, outside of a sandbox); the limit of files. The exit status is the verdict.

A program passes if it runs to its end. Whether it has is not told by the program's process, which any program could imitate: that process
has no descriptor, no token and no exit status that means "passed". It stops itself (SIGSTOP) three times: outside of everything, before the
program and after it. At the last two stops, the supervisor reads from the kernel where it stands: system call, program counter, stack
pointer, and the part of its stack that belongs to the first stop. All are the same only after the program has returned:

- Code inside of the program stands deeper, whatever it calls.
- Code that runs after an exception (hooks, handlers at exit, destructors, the interpreter's shutdown) may stand at any depth, but not on
  the same stack: the calls that began the program have been left, and others lie in their place. The process also ends before most of it.
- The frame of `enclosed` has no variable, no second line and no handler. What it calls are constants of its code, so that a program that
  reaches the frame (`sys._getframe`, a trace function) finds nothing to replace and no line to jump to.
"""

# ruff: noqa: PTH123, PTH208 - importing pathlib would take a tenth of the time of a short program

import contextlib
import ctypes
import operator
import os
import resource
import select
import signal
import sys
import time
import types
import warnings

PASSED, FAILED, BROKEN, KILLED = 40, 41, 42, 43
STARTED = b"the program has started\n"
SET_DUMPABLE = 4  # of prctl
POLL_SECONDS = 0.02
FILE_BYTES, OPEN_FILES = 2**24, 128
WRITABLE = ("/tmp", "/dev/shm")


def position(pid: int) -> list[str]:
    """Where the main thread of a stopped process stands: system call and its first arguments, stack pointer, program counter.

    Empty on systems that do not tell it.
    """
    try:
        with open(f"/proc/{pid}/syscall") as file:
            words = file.read().split()
    except OSError:
        return []
    return [*words[:3], *words[-2:]] if len(words) == 9 else []


def stack(pid: int, start: int) -> bytes:
    """The main thread's stack from an address to where the process began; empty on systems that do not show it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            end = int(file.read().rpartition(")")[2].split()[25])  # startstack
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            return memory.read(end - start) if start < end else b""
    except OSError:
        return b""


def supervise(child: int, seconds: float, memory: int, files: int, sandboxed: bool) -> int:
    """The verdict on the program of the process `child`."""
    outside, before = 0, None
    now = looked = time.monotonic()
    deadline = now + seconds
    while (now := time.monotonic()) < deadline:
        if now - looked > POLL_SECONDS:
            if abandoned():
                os.kill(child, signal.SIGKILL)
                return BROKEN
            if sandboxed and exceeded(memory, files):
                return FAILED
            looked = time.monotonic()
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            wait(POLL_SECONDS)
        elif pid == child and not os.WIFSTOPPED(status):
            return ended(status) if before is not None else BROKEN
        elif pid == child and not outside:
            where = position(child)
            if sandboxed and not (where and stack(child, int(where[-2], 16))):
                print(
                    "the kernel does not tell where a process stands (/proc/PID/syscall, /proc/PID/mem; kernel.yama.ptrace_scope may be 2)",
                    file=sys.stderr,
                )
                return BROKEN
            outside = int(where[-2], 16) if where else 1
            os.kill(child, signal.SIGCONT)
        elif pid == child and before is None:
            before = (position(child), stack(child, outside))
            os.write(2, STARTED)
            os.kill(child, signal.SIGCONT)
        elif pid == child:
            return PASSED if (position(child), stack(child, outside)) == before else FAILED
    return FAILED if before is not None else BROKEN


def ended(status: int) -> int:
    """The verdict on a program whose process ended: a wrong answer, or unknown if it was killed (other than for its time)."""
    return KILLED if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else FAILED


def wait(seconds: float) -> None:
    """Wait until the state of a child process changes, at most `seconds`."""
    if hasattr(signal, "sigtimedwait"):
        signal.sigtimedwait([signal.SIGCHLD], seconds)
    else:
        time.sleep(seconds / 4)


def abandoned() -> bool:
    """Whether the process that waits for the verdict has ended: nothing holds the other end of this one's stderr any more.

    The signal of bubblewrap's `--die-with-parent` does not arrive where root runs one bubblewrap in another as another user: the outer one
    has no capability left to send it.
    """
    waiting = select.poll()
    waiting.register(2, 0)
    return bool(waiting.poll(0))


def exceeded(memory: int, files: int) -> bool:
    """Whether the processes of the sandbox together hold more memory, or its temporary folders more files, than they may."""
    used = [os.statvfs(folder) for folder in WRITABLE]
    if sum(folder.f_files - folder.f_ffree for folder in used) > files:
        return True
    processes = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    if sum(map(resident, processes)) <= memory:
        return False
    return sum(map(proportional, processes)) > memory  # slower, and counts what processes share once


def resident(pid: str) -> int:
    """Bytes of a process in memory and in swap."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("VmRSS:", "VmSwap:")))
    return 0


def proportional(pid: str) -> int:
    """Bytes of a process in memory and in swap, those that n processes share counted as one n-th."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("Pss:", "SwapPss:")))
    return resident(pid)


def confine(seconds: float, memory: int, processes: int) -> None:
    """Give the process of the program nothing but /dev/null and its limits."""
    os.closerange(3, 2**20 if sys.platform == "linux" else 2**10)  # one system call on Linux
    limits = {"CPU": int(seconds) + 1, "AS": memory, "FSIZE": FILE_BYTES, "CORE": 0, "NOFILE": OPEN_FILES, "MEMLOCK": 0, "MSGQUEUE": 0}
    if processes:
        limits["NPROC"] = processes
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            with contextlib.suppress(ValueError, OSError):  # the present limit is lower; macOS refuses some
                resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DUMPABLE, 1, 0, 0, 0)  # the supervisor may look at this process, and not the other way round
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory is short, the kernel ends this process first
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.dup2(1, 2)  # what failed so far is told by the supervisor's stderr


def enclosed(program: bytes) -> types.FunctionType:
    """A function that runs the program between two stops. A process that the program has forked does not stop.

    The names in its text are constants, which the functions and values take the place of. An exception leaves it.
    """
    module = types.ModuleType("answer")
    # Under both names, so that classes can be pickled. A block for `__name__ == "__main__"` does not run, as in the hub's metric.
    sys.modules["answer"] = sys.modules["__main__"] = module
    values = {
        **{"stop": signal.raise_signal, "number": signal.SIGSTOP, "run": exec, "getpid": os.getpid, "pid": os.getpid()},
        **{"compile": compile, "program": program, "name": "answer", "mode": "exec", "module": module.__dict__},
    }
    text = "lambda: ('stop'('number'), 'run'('compile'('program', 'name', 'mode'), 'module'), 'getpid'() == 'pid' and 'stop'('number'))"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a text is called
        function: types.FunctionType = eval(text, {})
    constants = tuple(values.get(value, value) if isinstance(value, str) else value for value in function.__code__.co_consts)
    function.__code__ = function.__code__.replace(co_consts=constants)
    return function


def through(function: types.FunctionType) -> None:
    """Call a function by way of C."""
    next(map(operator.call, (function,)))


def begin(program: bytes) -> None:
    """Stop, and run the program with two more frames of C and of the interpreter in between."""
    leave, stop = os._exit, signal.raise_signal
    try:
        stop(signal.SIGSTOP)
        next(map(through, (enclosed(program),)))
    except:  # noqa: E722 - whatever it was
        leave(FAILED)
    leave(FAILED)


if __name__ == "__main__":
    seconds, memory, processes, files = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    source = sys.stdin.buffer.read()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DUMPABLE, 0, 0, 0, 0)  # no other process may read this one's memory or descriptors
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 of a namespace receives only signals that it handles
    child = os.fork()
    if child:
        os._exit(supervise(child, seconds, memory, files, bool(processes)))
    confine(seconds, memory, processes)
    sys.argv[:] = ["answer"]
    begin(source)
