"""A node of several processes in a run: its worker's end is theirs, and the store holds what one process would have made."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from compresslab.models.progress import Amount
from compresslab.plan.graph import Node, Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import NO_CHANGES
from compresslab.records import Cost, StepRecord, read_record
from compresslab.runner.processes import Listener
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

pytestmark = pytest.mark.slow
NODE = "distill healed"


class Striker(Watcher, Listener):
    """Sends a signal to the worker of `NODE`, or to one of its processes, when it has trained for a while; once."""

    def __init__(self, signum: int, *, at_one: bool = False) -> None:
        self.signum, self.at_one = signum, at_one
        self.pid, self.node = 0, ""
        self.processes: list[psutil.Process] = []
        self.told: list[str] = []

    def starting(self, node: Node, estimated: float | None) -> Listener:
        self.node = node.label
        return self

    def started(self, pid: int) -> None:
        self.pid = pid

    def again(self, node: Node, why: str) -> None:
        self.told.append(why)

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        if self.node == NODE and text.startswith("loss") and share > 0.3 and not self.processes:
            self.processes = psutil.Process(self.pid).children()
            os.kill(self.processes[1].pid if self.at_one else self.pid, self.signum)


def plan_with(recipe: Path, devices: int) -> Plan:
    recipe.write_text(recipe.read_text().replace("distill: {tokens: 512,", f"distill: {{tokens: 512, devices: {devices},"))
    return prepare(recipe, NO_CHANGES)


def healed(plan: Plan, store: Store) -> dict[str, torch.Tensor]:
    return load_file(store.model(plan.variant("healed").model) / "model.safetensors")


@pytest.fixture(scope="module")
def alone(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "recipe.yaml").write_text(recipe_text)
    plan, store = prepare(folder / "recipe.yaml", NO_CHANGES), Store(folder / "store")
    assert run(plan, store, Watcher()).failures == {}
    return healed(plan, store)


@pytest.mark.parametrize("at_one", [False, True], ids=["the worker", "one of its processes"])
def test_a_killed_process_ends_all_of_them_and_the_node_is_made_again(
    recipe: Path, tmp_path: Path, alone: dict[str, torch.Tensor], at_one: bool
):
    plan, store = plan_with(recipe, 2), Store(tmp_path / "store")
    striker = Striker(signal.SIGKILL, at_one=at_one)
    result = run(plan, store, striker)
    assert result.failures == {}
    assert len(striker.processes) == 2
    assert psutil.wait_procs(striker.processes, 5)[1] == []
    who = r"process 1 of 2, of the node, was killed by SIGKILL" if at_one else "its process was killed by SIGKILL"
    assert [why.startswith(who) for why in striker.told] == [True]
    key = plan.variant("healed").model
    made = healed(plan, store)
    assert made.keys() == alone.keys()
    assert all(torch.allclose(made[name].float(), alone[name].float(), atol=1e-4) for name in made)
    folder = store.folder(key)
    assert read_record(folder / "cost.json", Cost, "").devices == 2
    assert read_record(folder / "record.json", StepRecord, "").reload_difference == 0


def test_an_interrupted_worker_leaves_a_common_checkpoint(recipe: Path, tmp_path: Path):
    plan, store = plan_with(recipe, 2), Store(tmp_path / "store")
    began = time.monotonic()
    striker = Striker(signal.SIGINT)
    failures = run(plan, store, striker).failures
    assert {plan.node(key).label for key in failures} >= {NODE}
    assert failures[plan.variant("healed").model].cause.startswith("it was interrupted (SIGINT)")
    assert psutil.wait_procs(striker.processes, 5)[1] == []
    kept = [path.name for path in store.checkpoints(plan.variant("healed").model).glob("*/*")]
    assert len(kept) == 1
    assert kept[0].startswith("shared-")
    assert time.monotonic() - began < 120
    assert run(plan, store, Watcher()).failures == {}
