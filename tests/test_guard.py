"""The guard against emulated products catches a slow one, in the tests' process and in the product's workers, and leaves others alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from guard import emulation
from guard.emulation import DTYPES, FINDINGS, LIMIT, Watched

from compresslab.runner.processes import Worker

HALF = frozenset({torch.bfloat16})


def taking(seconds: float) -> Callable[[], float]:
    """A clock of which every second look is so much later than the first."""
    times = iter([0.0, seconds] * 9)
    return lambda: next(times)


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    return tmp_path / "findings.txt"


def test_a_slow_product_of_an_emulated_dtype_is_told_with_its_stack(findings: Path) -> None:
    product = Watched(torch.matmul, HALF, findings, taking(1.5))
    left = torch.ones(2, 3, dtype=torch.bfloat16)
    assert torch.equal(product(left, left.T), left @ left.T)
    told = findings.read_text()
    assert told.startswith(f"matmul of torch.bfloat16 (2, 3) took 1.5 s in process {os.getpid()}, in tests/test_guard.py::")
    assert "torch.equal(product(left, left.T)" in told


@pytest.mark.parametrize(("dtype", "seconds"), [(torch.bfloat16, LIMIT / 2), (torch.float32, 100.0), (torch.float16, 100.0)])
def test_fast_products_and_those_of_other_dtypes_are_left_alone(findings: Path, dtype: torch.dtype, seconds: float) -> None:
    square = torch.ones(2, 2, dtype=dtype)
    assert torch.equal(Watched(torch.mm, HALF, findings, taking(seconds))(square, square), square.mm(square))
    assert not findings.exists()


def test_products_by_operator_method_and_module_are_watched(findings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DTYPES, "bfloat16")
    monkeypatch.setenv(FINDINGS, str(findings))
    for owner, name in emulation.products():
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, function.function if isinstance(function, Watched) else function)
    emulation.install()
    for owner, name in emulation.products():
        assert isinstance(getattr(owner, name), Watched)
        monkeypatch.setattr(getattr(owner, name), "clock", taking(2.0))
    square, layer = torch.ones(2, 2, dtype=torch.bfloat16), torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    square @ square, square.mm(square), layer(square), torch.bmm(square[None], square[None])
    torch.nn.functional.scaled_dot_product_attention(square[None], square[None], square[None])
    assert [line.split()[0] for line in findings.read_text().splitlines() if "took 2.0 s" in line] == [
        *("__matmul__", "mm", "linear", "bmm", "scaled_dot_product_attention"),
    ]


def test_a_tensor_of_a_library_finds_its_own_version_of_a_watched_function(findings: Path) -> None:
    product = Watched(torch.nn.functional.linear, HALF, findings)
    assert {product: "mine"}[torch._C._nn.linear] == "mine"
    assert {torch._C._nn.linear: "mine"}[product] == "mine"


def say(_: None, pipe: Any) -> None:
    pipe.send((type(torch.mm).__name__, os.environ[DTYPES], "guard.workers" in sys.modules))


@pytest.mark.slow
def test_workers_are_watched(tmp_path: Path) -> None:
    with Worker(tmp_path / "workers.log") as worker:
        worker.start(say, None)
        assert worker.pipe.recv() == ("Watched" if os.environ[DTYPES] else type(torch.mm).__name__, os.environ[DTYPES], True)
        worker.finish(5)


@pytest.mark.parametrize(("text", "status"), [("matmul took 2 s", pytest.ExitCode.TESTS_FAILED), ("", pytest.ExitCode.OK)])
def test_a_finding_fails_the_run(findings: Path, text: str, status: pytest.ExitCode, pytestconfig: pytest.Config) -> None:
    shared: Any = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    if text:
        findings.write_text(text)
    session: Any = SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=SimpleNamespace(stash={shared.FINDINGS: findings}))
    shared.pytest_sessionfinish(session)
    assert session.exitstatus == status
