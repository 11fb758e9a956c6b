"""What fails is told by its key, and nothing is read back out of a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from compresslab.plan.graph import Node, Plan
from compresslab.recipe.schema import Recipe
from compresslab.runner import attempt as attempting
from compresslab.runner import run as running
from compresslab.runner.messages import Done, Failed
from compresslab.runner.run import RunResult, Watcher, run
from compresslab.store.store import Store

# Names as no recipe has them: they look like the sentences that are told about them.
NODES = (
    Node("model", "base", "b"),
    Node("model", "a” failed, because “b", "a", ("b",)),
    Node("model", "not run, because “x", "c", ("a",)),
    Node("evaluate", "c", "s", ("c",), tasks={"t": "t"}),
    Node("evaluate", "base", "r", ("b",), tasks={"t": "u"}),
)


def ran(failing: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """A run whose workers fail for these causes, by key."""

    made = set()

    def make(node: Node, *_: object) -> Done | Failed:
        if node.key in failing:
            return Failed(failing[node.key])
        made.add(node.key)
        return Done(None, 0.0, 0, "cpu")

    monkeypatch.setattr(attempting, "make", make)
    for module in (running, attempting):
        monkeypatch.setattr(module, "is_done", lambda node, _: node.key in made)
    monkeypatch.setattr(Store, "problem", lambda *_, **__: "")
    monkeypatch.setattr(Store, "occupied", lambda _, key: key in made)
    monkeypatch.setattr(running, "estimate", lambda *_: SimpleNamespace(seconds=None, memory=None, disk=0))
    plan = Plan(cast(Recipe, SimpleNamespace(study="s", evaluate=SimpleNamespace(backend="tree"))), NODES, ())
    return run(plan, Store(folder), Watcher())


def test_what_is_lost_names_the_node_at_the_start_of_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = ran({"a": "it broke"}, tmp_path, monkeypatch).failures
    assert {key: failure.because for key, failure in failures.items()} == {"a": None, "c": "a", "s": "a"}
    told = f"not run, because “{NODES[1].label}” failed"
    assert [failure.cause for failure in failures.values()] == ["it broke", told, told]


def test_a_cause_that_sounds_like_a_loss_is_a_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = ran({"a": "not run, because nobody was there"}, tmp_path, monkeypatch).failures
    assert failures["c"].cause == f"not run, because “{NODES[1].label}” failed"
    assert failures["s"].because == "a"
