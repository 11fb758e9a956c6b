"""Programs of a model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from compresslab.errors import RunFailed
from compresslab.evaluation import sandbox
from compresslab.evaluation.sandbox import CodeEval, own_code_eval, pass_at_k, passes

pytestmark = pytest.mark.slow

ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("program", "good"),
    [
        (ADD + "assert add(2, 3) == 5", True),
        (ADD + "assert add(2, 3) == 6", False),
        ("def add(a, b):\n    return a +", False),
        ("print('x' * 10**6)", True),
        ("import sys\nsys.exit(0)", False),
        ("import os\nos._exit(0)", False),
        ("import time\ntime.sleep(60)", False),
        ("while True: pass", False),
        ("x = bytearray(3 * 2**30)", False),
        ("open('large', 'wb').write(bytes(2**26))", False),
        ("import socket\nsocket.create_connection(('127.0.0.1', 1), 1)", False),
        ("import os\nassert os.listdir() == [] and not os.environ.get('HOME')", True),
    ],
)
def test_a_program_passes_if_it_runs_to_its_end(program: str, good: bool):
    began = time.monotonic()
    assert passes(program, 2) is good
    assert time.monotonic() - began < 8


def test_a_program_has_no_network():
    """The loopback network is also unavailable: the error is a missing network, not a closed port."""
    lines = ["import errno, socket", "try:", "    socket.create_connection(('127.0.0.1', 9), 1)", "except OSError as e:"]
    assert passes("\n".join([*lines, "    assert e.errno == errno.ENETUNREACH"]))


def test_no_process_outlives_its_program(tmp_path: Path):
    mark = tmp_path / "mark"
    assert passes(f"import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    open({str(mark)!r}, 'w').write('here')", 5)
    time.sleep(1.5)
    assert not mark.exists()


def test_where_the_network_cannot_be_given_up_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    child = tmp_path / "child.py"
    child.write_text(f"raise SystemExit({sandbox.NOT_ISOLATED})")
    monkeypatch.setattr(sandbox, "CHILD", child)
    with pytest.raises(RunFailed, match="unshare is denied"):
        passes("pass")


def test_pass_at_k_is_the_chance_that_one_of_k_passes():
    assert pass_at_k([True, False, False, False], 1) == pytest.approx(0.25)
    assert pass_at_k([True, False, False, False], 2) == pytest.approx(0.5)
    assert pass_at_k([True] * 4, 2) == 1


def test_lm_evals_tasks_get_this_metric_for_the_hubs():
    import evaluate

    with own_code_eval():
        metric = evaluate.load("code_eval")
    assert isinstance(metric, CodeEval)
    scores, _ = metric.compute(references=["assert add(2, 3) == 5"], predictions=[[ADD, ADD.replace("+", "*")]], k=[1, 2])
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}
