"""The store: results appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from compresslab.plan.graph import Node, Plan
from compresslab.recipe.schema import Recipe
from compresslab.records import Cost, MachineSpeed, StudyNote, UnreadableRecord
from compresslab.runner import make as making
from compresslab.runner import run as running
from compresslab.runner.messages import Done, NodeJob
from compresslab.store.done import why_missing
from compresslab.store.store import Store, write_record
from compresslab.store.upkeep import damages, repair

COST = Cost(seconds=1.0, peak_memory_bytes=2, started="2026-01-01T00:00:00+00:00", threads=2, device="cpu")
SPEED = MachineSpeed(bandwidth=1.0, flops=2.0, threads=2, device="cpu", dtype="float32")


def test_a_result_is_there_only_after_its_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.stage("key") as staged:
        write_record(staged, COST, "cost.json")
        assert not store.has("key")
        store.commit("key", staged)
    assert store.has("key")
    assert store.cost("key") == COST


def test_an_error_while_staging_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> None:
        with store.stage("key") as staged:
            (staged / "half").write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert not store.has("key")
    assert not list(store.staging.iterdir())


def test_the_quicker_of_two_runs_wins(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.stage("key") as first, store.stage("key") as second:
        (first / "who").write_text("first")
        (second / "who").write_text("second")
        store.commit("key", first)
        store.commit("key", second)
    assert (store.folder("key") / "who").read_text() == "first"
    assert not list(store.staging.iterdir())


def test_sweep_removes_what_dead_runs_left_and_spares_the_living(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead, living = store.staging / "dead-x", store.staging / "living-x"
    for folder in (dead, living):
        folder.mkdir(parents=True)
    with Store(tmp_path).leases.held("living"):
        store.sweep()
        assert not dead.exists()
        assert living.exists()
    store.sweep()
    assert not living.exists()
    assert not list((tmp_path / "leases").iterdir())


def test_a_broken_note_of_a_study_does_not_hide_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = StudyNote(recipe="r.yaml", finished="", variants={})
    store.remember("good", good)
    (store.studies / "bad.json").write_text("{")
    (store.studies / "worse.json").write_text("[]")
    (store.studies / "worst.json").write_text("{}")
    assert store.notes() == {"good": good}
    assert len(store.broken_notes()) == 3


def made(store: Store, threads: int = 2) -> Path:
    """Put this machine's speed into a store; gives its folder."""
    with store.stage("key") as staged:
        write_record(staged, SPEED.model_copy(update={"threads": threads}))
        (staged / "more").write_text("whole")
        write_record(staged, COST, "cost.json")
        store.commit("key", staged, MachineSpeed)
    return store.folder("key")


DAMAGES = {
    "an older version": lambda folder: rewrite(folder, '"version": 1', '"version": 0'),
    "a newer version": lambda folder: rewrite(folder, '"version": 1', '"version": 2'),
    "a missing field": lambda folder: rewrite(folder, '"flops"', '"flips"'),
    "cut off": lambda folder: os.truncate(folder / "record.json", 20),
    "empty": lambda folder: os.truncate(folder / "record.json", 0),
    "no record": lambda folder: (folder / "record.json").unlink(),
    "another file cut off": lambda folder: os.truncate(folder / "more", 2),
    "another file gone": lambda folder: (folder / "more").unlink(),
    "no digests": lambda folder: (folder / "digests.json").unlink(),
    "digests cut off": lambda folder: os.truncate(folder / "digests.json", 20),
    "digests of another form": lambda folder: (folder / "digests.json").write_text('{"more": 3}'),
    "digests that are a list": lambda folder: (folder / "digests.json").write_text("[]"),
}


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "record.json").read_text()
    assert old in text
    (folder / "record.json").write_text(text.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_result_that_cannot_be_used_counts_as_not_there_is_named_and_is_replaced(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = made(store)
    assert store.holds("key", MachineSpeed)
    assert store.find("key", MachineSpeed) == SPEED
    assert not damages(store, {"key": MachineSpeed})
    DAMAGES[damage](folder)
    assert store.occupied("key")
    assert not store.holds("key", MachineSpeed)
    assert store.find("key", MachineSpeed) is None
    assert store.problem("key", MachineSpeed)
    [found] = damages(store, {"key": MachineSpeed})
    assert len(found.problems) == 1
    made(store, threads=3)
    assert store.read("key", MachineSpeed).threads == 3
    assert not damages(store, {"key": MachineSpeed})
    assert not list(store.staging.iterdir())


@pytest.mark.parametrize(("version", "age"), [(0, "an older"), (2, "a newer")])
def test_a_whole_result_of_another_version_is_named_and_counts_as_not_there(version: int, age: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.stage("key") as staged:
        (staged / "record.json").write_text(json.dumps({**json.loads(SPEED.model_dump_json()), "version": version}))
        write_record(staged, COST, "cost.json")
        store.commit("key", staged, MachineSpeed)
    assert not store.holds("key", MachineSpeed)
    [found] = damages(store, {"key": MachineSpeed})
    told = f"was not written by this version of compresslab but by {age} one (its form is {version}, and this one reads 1)"
    assert found.problems == (f"record.json {told}",)
    with pytest.raises(UnreadableRecord, match=f"but by {age} one.*; `compresslab verify` tells"):
        store.read("key", MachineSpeed)


def test_a_cost_that_cannot_be_read_makes_the_result_no_worse(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = made(store)
    os.truncate(folder / "cost.json", 10)
    assert store.cost("key") is None
    assert store.holds("key", MachineSpeed)
    assert damages(store, {"key": MachineSpeed}) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_makes_again_what_cannot_be_used(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, jobs = Store(tmp_path), []
    plan = Plan(cast(Recipe, SimpleNamespace(study="s")), (Node("machine", "", "key"),), ())

    def execute(job: NodeJob, *_: object) -> Done:
        jobs.append(job.node.key)
        write_record(job.staged, SPEED)
        (job.staged / "more").write_text("whole")
        return Done(None, 1.0, 2, "cpu")

    monkeypatch.setattr(making, "execute", execute)
    monkeypatch.setattr(running, "estimate", lambda *_: SimpleNamespace(seconds=None, memory=None, disk=0))
    assert running.run(plan, store, running.Watcher()).cached == 0
    assert running.run(plan, store, running.Watcher()).cached == 1
    DAMAGES[damage](store.folder("key"))
    assert "cannot be used" in why_missing(plan.nodes[0], store)
    assert running.run(plan, store, running.Watcher()).cached == 0
    assert jobs == ["key", "key"]
    assert store.find("key", MachineSpeed) == SPEED


def commit(store: Store, key: str, content: bytes, *parents: str) -> None:
    with store.stage(key) as staged:
        (staged / "items.parquet").write_bytes(content)
        store.commit(key, staged, made_from=store.made_from(parents))


def test_one_bit_of_scores_is_noticed_however_many_there_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "key", bytes(20_000_000))
    with (store.folder("key") / "items.parquet").open("rb+") as file:
        file.seek(15_000_000)
        file.write(b"\1")
    assert not store.has("key")


def test_staleness_reaches_all_descendants_also_over_a_gap(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "base", b"one")
    commit(store, "gathered", b"of the base", "base")
    commit(store, "child", b"of what was gathered", "gathered")
    assert store.has("child")
    store.discard("base")
    assert store.has("child")
    commit(store, "base", b"two")
    store.discard("gathered")
    assert "it was made from another base" in store.problem("child", None)
    assert [damage.key for damage in damages(store, {"child": None})] == ["child"]


def test_a_result_that_is_removed_while_it_is_looked_at_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    folder = made(store)
    changes = store.digests.changes

    def removing(*arguments: Path, every_byte: bool) -> Iterator[str]:
        yield from changes(*arguments, every_byte=every_byte)
        (folder / "digests.json").unlink()

    monkeypatch.setattr(store.digests, "changes", removing)
    assert not store.holds("key", MachineSpeed)


def test_repair_leaves_what_a_run_has_made_again_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path)
    os.truncate(made(store) / "more", 2)
    found = damages(store, {"key": MachineSpeed})
    made(store, threads=3)
    repair(store, found, {"key": MachineSpeed})
    assert store.read("key", MachineSpeed).threads == 3
