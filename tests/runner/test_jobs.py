"""Several nodes at once: the same results, each node made once, an interruption ends them all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from runner.test_killed_workers import results

from compresslab.errors import BadInput
from compresslab.models.progress import Amount
from compresslab.plan.graph import Node, Plan
from compresslab.plan.prepare import prepare
from compresslab.records.compute import Compute, Probe
from compresslab.runner.executors.local import LocalExecutor, visible
from compresslab.runner.processes import Listener
from compresslab.runner.run import run
from compresslab.runner.schedule import Host
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store
from compresslab.studies.run_study import run_study


class Beside(Watcher):
    """Notes which nodes ran beside which, and how often each was started."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.started: list[str] = []
        self.beside: set[frozenset[str]] = set()

    def starting(self, node: Node, estimated: float | None) -> Listener:
        self.beside |= {frozenset({node.label, other}) for other in self.running}
        self.running.add(node.label)
        self.started.append(node.label)
        return Listener()

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        assert not failure
        self.running.discard(node.label)


@pytest.mark.slow
def test_two_nodes_at_once_give_the_results_of_one(recipe: Path, tmp_path: Path) -> None:
    plan, one, two = prepare(recipe), Store(tmp_path / "one"), Store(tmp_path / "two")
    alone, beside = Beside(), Beside()
    assert not run(plan, one, alone, LocalExecutor(plan, one, 1, threads=1)).failures
    assert not run(plan, two, beside, LocalExecutor(plan, two, 2, threads=1)).failures
    assert results(one) == results(two)
    assert not alone.beside
    assert beside.beside
    assert sorted(alone.started) == sorted(beside.started)
    assert len(set(beside.started)) == len(beside.started)
    assert not any(label.startswith(("time ", "measure ")) for pair in beside.beside for label in pair), "timed with nothing beside them"


@pytest.mark.slow
def test_an_interruption_ends_all_that_runs(recipe: Path, tmp_path: Path) -> None:
    plan, store = prepare(recipe), Store(tmp_path / "store")
    pids: set[int] = set()

    class CtrlC(Beside):
        def starting(self, node: Node, estimated: float | None) -> Listener:
            super().starting(node, estimated)
            return OfTwo()

    class OfTwo(Listener):
        def started(self, pid: int) -> None:
            pids.add(pid)

        def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
            if len(watcher.running) == 2 and len(pids) >= 2:
                raise KeyboardInterrupt

    watcher = CtrlC()
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, watcher, LocalExecutor(plan, store, 2, threads=1))
    assert not list(store.staging.iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name in watcher.started]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not run(plan, store, Watcher()).failures


def accelerated(count: int, device: str = "cuda:0") -> Plan:
    """A plan for a machine with so many accelerators."""
    probe = Probe(device=device, backend="cuda", accelerator="H100", count=count, rates={}, slowdown={}, bandwidth=1e12)
    return Plan(None, (), (), compute=Compute("bfloat16", device, "cuda"), probe=probe)  # type: ignore[arg-type]


def test_there_is_one_job_an_accelerator_and_never_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [host] = LocalExecutor(accelerated(4), store).hosts()
    assert (host.slots, host.devices) == (4, ("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    with pytest.raises(BadInput, match="--jobs 5: this machine has 4 accelerators"):
        LocalExecutor(accelerated(4), store, 5)
    [host] = LocalExecutor(accelerated(4, "cuda:2"), store).hosts()
    assert (host.slots, host.devices) == (1, ()), "one that was named"
    with pytest.raises(BadInput, match="--jobs 0"):
        LocalExecutor(accelerated(1), store, 0)


def test_the_threads_are_divided_among_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compresslab.runner.executors.local.processors", lambda: 16)
    plan, store = accelerated(0, "cpu"), Store(tmp_path)
    assert [LocalExecutor(plan, store, jobs).threads for jobs in (None, 2, 3, 99)] == [16, 8, 5, 1]
    assert LocalExecutor(plan, store, 2, threads=3).threads == 3


def test_a_worker_sees_its_own_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible(("cuda:2", "cuda:3"), "cuda") == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert visible(("cuda:1",), "rocm") == {"HIP_VISIBLE_DEVICES": "1"}
    assert visible(("xpu:1",), "xpu") == {"ZE_AFFINITY_MASK": "1"}
    assert visible((), "cuda") == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    assert visible(("cuda:1",), "cuda") == {"CUDA_VISIBLE_DEVICES": "GPU-bb"}


def test_a_node_that_no_host_could_run_is_refused_before_anything_runs(tmp_path: Path) -> None:
    plan = replace(accelerated(2), recipe=SimpleNamespace(study="s"), nodes=(Node("measure", "base", "t"),), machine="an H100")  # type: ignore[arg-type]

    class Elsewhere(LocalExecutor):
        def hosts(self) -> Sequence[Host]:
            return [Host("other", 2, ("cuda:0", "cuda:1"), timed=False)]

    store = Store(tmp_path)
    with pytest.raises(BadInput, match="“time base” measures times of an H100, and no host here is one"):
        run(plan, store, Watcher(), Elsewhere(plan, store))


@pytest.mark.slow
def test_the_page_is_there_while_the_study_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compresslab.studies.growing_page.EVERY", 0.0)
    monkeypatch.setattr("compresslab.studies.growing_page.SHARE", 1e9)
    page, seen = tmp_path / "reports" / "tiny" / "index.html", []

    class Looks(Watcher):
        def ended(self, node: Node, seconds: float, failure: str) -> None:
            seen.append((node.label, page.exists() and "has not run yet" in page.read_text()))

    run_study(recipe, store=tmp_path / "store", reports=tmp_path / "reports", watcher=Looks())
    assert seen[0][1] is False
    assert any(there for _, there in seen)
    assert "has not run yet" not in page.read_text()
