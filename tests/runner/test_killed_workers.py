"""A worker that dies takes its node with it and nothing else, and a rerun ends where an undisturbed run ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from compresslab.models.progress import Amount
from compresslab.plan.graph import Node, Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.runner.processes import Listener
from compresslab.runner.run import MADE_AGAIN, RunResult, run
from compresslab.runner.watcher import Watcher
from compresslab.store.done import is_done
from compresslab.store.store import Store
from compresslab.studies.assemble import assemble


class Killer(Watcher, Listener):
    """Kills workers of one node at their first sign of progress, the first `times` of them."""

    def __init__(self, label: str, times: int = MADE_AGAIN + 1) -> None:
        self.label, self.pid, self.times = label, 0, times
        self.killed: set[int] = set()
        self.node: Node | None = None
        self.told: list[str] = []

    def starting(self, node: Node, estimated: float | None) -> Listener:
        self.node = node
        return self

    def started(self, pid: int) -> None:
        self.pid = pid

    def again(self, node: Node, why: str) -> None:
        self.told.append(f"{node.label}: {why}")

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        assert self.node is not None
        if self.node.label == self.label and self.pid not in self.killed and len(self.killed) < self.times:
            self.killed.add(self.pid)
            os.kill(self.pid, signal.SIGKILL)


def results(store: Store) -> dict[str, bytes]:
    """Everything in the store but the costs, by path."""
    files = (path for path in store.objects.rglob("*") if path.is_file() and path.name != "cost.json")
    return {str(path.relative_to(store.objects)): path.read_bytes() for path in files}


def labels(plan: Plan, ran: RunResult) -> dict[str, str]:
    return {plan.node(key).label: failure.cause for key, failure in ran.failures.items()}


@pytest.fixture(scope="module")
def finished(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that holds all of the study, from a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "recipe.yaml").write_text(recipe_text)
    store = Store(folder / "store")
    assert not run(prepare(folder / "recipe.yaml"), store, Watcher()).failures
    return store


@pytest.fixture(scope="module")
def undisturbed(finished: Store) -> dict[str, bytes]:
    return results(finished)


def test_killed_in_every_kind_of_node_then_rerun_gives_equal_bytes(recipe: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    plan, store = prepare(recipe), Store(tmp_path / "disturbed")
    for label, lost in [
        (
            "calibrate base",
            ["prune pruned", "distill healed", "quantize packed", "evaluate pruned", "evaluate healed", "evaluate packed"],
        ),
        ("prune pruned", ["distill healed", "quantize packed", "evaluate pruned", "evaluate healed", "evaluate packed"]),
        ("distill healed", ["quantize packed", "evaluate healed", "evaluate packed"]),
        ("quantize packed", ["evaluate packed"]),
        ("evaluate packed", []),
    ]:
        killer = Killer(label)
        ran = run(plan, store, killer)
        assert len(killer.killed) == MADE_AGAIN + 1
        told = labels(plan, ran)
        [cause] = [key for key in ran.failures if plan.node(key).label == label]
        assert {failure.because for key, failure in ran.failures.items() if key != cause} <= {cause}
        assert ran.failures[cause].because is None
        assert "SIGKILL" in told.pop(label)
        assert sorted(told) == sorted(lost)
        assert all(f"“{label}” failed" in cause for cause in told.values())
        # The rest was done, nothing half made is left, and the report says what is missing.
        assert all(is_done(node, store) for node in plan.nodes if node.key not in ran.failures)
        assert not list(store.staging.iterdir())
        record = assemble(plan, store, ran)
        broken = {variant.name for variant in record.variants if variant.failures}
        assert "pruned" in broken if label == "calibrate base" else label.split()[1] in broken
        assert "base" not in broken
    assert not run(plan, store, Watcher()).failures
    assert results(store) == undisturbed


def test_a_node_whose_worker_is_killed_once_is_made_again_in_the_same_run(
    recipe: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    plan, store = prepare(recipe), Store(tmp_path / "disturbed")
    killer = Killer("prune pruned", times=1)
    assert not run(plan, store, killer).failures
    [told] = killer.told
    assert "prune pruned: its process was killed by SIGKILL" in told
    assert results(store) == undisturbed


def test_evaluation_resumes_at_the_items_where_it_was_killed(recipe: Path, tmp_path: Path) -> None:
    # So many items that the second task is not done by the time the signal comes, however busy the machine is.
    plan, store = prepare(recipe, Changes(("evaluate.items=100",), ("base",))), Store(tmp_path / "store")
    undisturbed = Store(tmp_path / "undisturbed")
    assert not run(plan, undisturbed, Watcher()).failures

    class KillAfterFirstTask(Killer):
        def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
            if share > 0.5:
                super().progress(share, text, amount)

    run(plan, store, KillAfterFirstTask("evaluate base"))
    first, second = plan.node(plan.variant("base").evaluate).tasks.values()
    assert store.has(first)
    assert not store.has(second)
    stamp = store.folder(first).stat().st_mtime_ns
    answered = store.checkpoints(plan.variant("base").evaluate)
    assert sum(len(file.read_text().splitlines()) for file in answered.rglob("*.jsonl")) >= 2
    assert not run(plan, store, Watcher()).failures
    assert store.has(second)
    assert store.folder(first).stat().st_mtime_ns == stamp
    assert not answered.exists()
    assert results(store) == results(undisturbed)


def test_an_interrupted_training_keeps_how_far_it_came(recipe: Path, tmp_path: Path) -> None:
    """The terminal's Ctrl-C reaches the command alone, which hands it on to the worker."""
    long = recipe.read_text().replace("tokens: 512", "tokens: 65536").replace("length: 32}\nvariants", "length: 32, tokens: 512}\nvariants")
    recipe.write_text(long)
    plan, store = prepare(recipe), Store(tmp_path / "store")

    class CtrlC(Killer):
        def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
            assert self.node is not None
            if self.node.label == self.label and text.startswith("loss"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, store, CtrlC("distill healed"))
    assert any(store.checkpoints(plan.variant("healed").model).iterdir())
    assert not list(store.staging.iterdir())


def test_second_run_does_nothing(recipe: Path, finished: Store) -> None:
    plan = prepare(recipe)

    class Nothing(Watcher):
        def starting(self, node: Node, estimated: float | None) -> Listener:
            raise AssertionError(f"{node.label} ran again")

    ran = run(plan, finished, Nothing())
    assert ran.cached == len(plan.nodes)
