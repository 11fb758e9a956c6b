"""Programs that a model wrote, run against their tests: without a network, for a limited time, in limited memory.

The isolation is that of a Linux network namespace and of resource limits, in an empty folder. It keeps a program from reaching out and
from filling the machine; it does not keep it from reading what its user may read. That is why a recipe has to allow it.
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
NOT_ISOLATED = 77  # the child's exit status where the system denies it a network namespace


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a program runs to its end, with no exception and no early exit.

    Raises:
        RunFailed: it cannot be cut off from the network here.
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
            process_group=0,  # in the session of the worker, so that it ends with it
        )
        try:
            said = _said(process, program, seconds)
        finally:
            _end(process)
    if process.returncode == NOT_ISOLATED:
        raise RunFailed("this system lets no process give up its network (unshare is denied), so no program that a model wrote is run")
    return process.returncode == 0 and said == token.encode()


class CodeEval:
    """What lm-eval's tasks expect of the hub's `code_eval` metric."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], Any]:
        """pass@k over problems: references are tests, predictions the programs tried for each.

        Source of the unbiased estimate: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374.
        """
        tried = [[passes(f"{program}\n{test}") for program in programs] for test, programs in zip(references, predictions, strict=True)]
        return {f"pass@{number}": sum(pass_at_k(found, number) for found in tried) / len(tried) for number in k}, tried


def pass_at_k(passed: Sequence[bool], k: int) -> float:
    """The chance that one of k programs, drawn from those tried, passes."""
    return 1 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k)


@contextlib.contextmanager
def own_code_eval() -> Iterator[None]:
    """Give lm-eval's tasks our metric where they ask the hub for `code_eval`, which would run programs with a network."""
    import evaluate

    load = evaluate.load

    def ours(path: str, *args: Any, **settings: Any) -> Any:
        return CodeEval() if path == "code_eval" else load(path, *args, **settings)

    with mock.patch.object(evaluate, "load", ours):
        yield


def _said(process: subprocess.Popen[bytes], program: str, seconds: float) -> bytes:
    """What the process had said when it ended; nothing if it did not end in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(program.encode())
        process.stdin.close()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return b""
    # Not to the end of the stream, which a process that it left behind holds open.
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
