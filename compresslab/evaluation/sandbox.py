"""Runs programs of a model against their tests, without a network and with limits of time and memory.

Programs run in an empty folder, in a Linux network namespace with resource limits. They cannot use the network or exhaust the machine, but
they can read all files that the user can read. A recipe must therefore allow them.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from compresslab.errors import RunFailed

SECONDS, MEMORY = 10, 2**30
CHILD = Path(__file__).with_name("sandboxed_program.py")
NOT_ISOLATED = 77  # exit status of the child if the system denies it a network namespace


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a program runs to its end, without an exception and without an early exit.

    Raises:
        RunFailed: the program cannot be isolated from the network on this system.
    """
    if not sys.platform.startswith("linux"):
        raise RunFailed("programs that a model wrote are run on Linux only, where they can be cut off from the network")
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="compresslab-program-") as folder:
        command = [sys.executable, "-I", str(CHILD), token, str(math.ceil(seconds)), str(MEMORY)]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # in the session of the worker, so that it ends with the worker
        )
        try:
            output = _output(process, program, seconds)
        finally:
            _end(process)
    if process.returncode == NOT_ISOLATED:
        raise RunFailed("this system lets no process give up its network (unshare is denied), so no program that a model wrote is run")
    return process.returncode == 0 and output == token.encode()


class CodeEval:
    """A replacement of the hub's `code_eval` metric for lm-eval's tasks."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], Any]:
        """pass@k over problems. `references` are tests, `predictions` the programs for each problem.

        Source of the unbiased estimate: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374.
        """
        results = [[passes(f"{program}\n{test}") for program in programs] for test, programs in zip(references, predictions, strict=True)]
        return {f"pass@{number}": sum(pass_at_k(found, number) for found in results) / len(results) for number in k}, results


def pass_at_k(passed: Sequence[bool], k: int) -> float:
    """The probability that at least one of k programs, drawn from the tried ones, passes."""
    return 1 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k)


@contextlib.contextmanager
def own_code_eval() -> Iterator[None]:
    """A context in which `CodeEval` replaces the hub's `code_eval`, which would run programs with a network."""
    import evaluate

    load = evaluate.load

    def ours(path: str, *args: Any, **settings: Any) -> Any:
        return CodeEval() if path == "code_eval" else load(path, *args, **settings)

    with mock.patch.object(evaluate, "load", ours):
        yield


def _output(process: subprocess.Popen[bytes], program: str, seconds: float) -> bytes:
    """The output of the process; empty if it did not end in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(program.encode())
        process.stdin.close()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return b""
    # The end of the stream may never come, since a child process of the program may keep it open.
    os.set_blocking(process.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        return os.read(process.stdout.fileno(), 1024)
    return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
