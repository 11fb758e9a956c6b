"""Finds products of half precision that a processor emulates for more than a second, here and in the product's worker processes.

Such a product takes 40 to 80 times as long as one in float32, so a test that computes one takes hours on a processor without units for it.
`tests/conftest.py` watches the test process and fails the run; `guard.workers` is imported by every worker that the product starts.
"""

from __future__ import annotations

import functools
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# In the environment, so that worker processes find them: the dtypes that this processor emulates, and the file that takes what is found.
DTYPES, FINDINGS = "COMPRESSLAB_TESTS_EMULATED", "COMPRESSLAB_TESTS_FINDINGS"
EMULATED = 4.0  # times as long as a product in float32
LIMIT = 1.0  # seconds of one thread's own processor time
FUNCTIONS = ("matmul", "mm", "bmm", "addmm", "baddbmm")
Clock = Callable[[], float]


class Watched:
    """A function of torch that looks at the dtype of what it gets, and at the time only where that is emulated.

    It is equal to the function in its place: torch's subclasses of tensors (torchao's) look their own version of it up in a dict.
    """

    def __init__(self, function: Callable[..., Any], dtypes: frozenset[Any], findings: Path, clock: Clock = time.thread_time) -> None:
        self.function, self.dtypes, self.findings, self.clock = function, dtypes, findings, clock
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        first = arguments[0] if arguments else next(iter(named.values()))
        if getattr(first, "dtype", None) not in self.dtypes or first.device.type != "cpu":
            return self.function(*arguments, **named)
        start = self.clock()
        result = self.function(*arguments, **named)
        if (seconds := self.clock() - start) > LIMIT:
            self._tell(first, seconds)
        return result

    def _tell(self, first: Any, seconds: float) -> None:
        what = f"{self.__name__} of {first.dtype} {tuple(first.shape)} took {seconds:.1f} s in process {os.getpid()}"
        stack = "".join(traceback.format_stack(limit=16)[:-2])
        with self.findings.open("a", encoding="utf-8") as file:
            file.write(f"{what}, in {os.environ.get('PYTEST_CURRENT_TEST', 'no test')}\n{stack}\n")

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __eq__(self, other: object) -> bool:
        return self.function == (other.function if isinstance(other, Watched) else other)

    def __hash__(self) -> int:
        return hash(self.function)


def install() -> None:
    """Watch the products of this process, if its environment names dtypes that are emulated."""
    names = [name for name in os.environ.get(DTYPES, "").split(",") if name]
    if not names:
        return
    import torch

    dtypes, findings = frozenset(getattr(torch, name) for name in names), Path(os.environ[FINDINGS])
    for owner, name in products():
        if not isinstance(function := getattr(owner, name), Watched):
            setattr(owner, name, Watched(function, dtypes, findings))


def products() -> list[tuple[Any, str]]:
    """The functions that are watched, by their owner and name. A backward pass takes no longer than twice its forward pass, which is."""
    import torch

    named = [(owner, name) for owner in (torch, torch.Tensor) for name in FUNCTIONS]
    return [(torch.nn.functional, "linear"), (torch.nn.functional, "scaled_dot_product_attention"), (torch.Tensor, "__matmul__"), *named]


def prepare(findings: Path) -> None:
    """Tell this process and all that it starts what to watch for; workers get the guard with the modules that they import first."""
    from compresslab.machine.this_machine import probe_device

    slowdown = probe_device("cpu").slowdown
    os.environ[DTYPES] = ",".join(name for name, times in slowdown.items() if times > EMULATED)
    os.environ[FINDINGS] = str(findings)
    watch_workers()


def watch_workers() -> None:
    """Let the workers that this process starts watch, too. Processes of other kinds find this room by PYTHONPATH."""
    from compresslab.runner.server_process import PRELOAD

    tests = str(Path(__file__).parents[1])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if tests not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([tests, *filter(None, paths)])
    if "guard.workers" not in PRELOAD:
        PRELOAD.append("guard.workers")
