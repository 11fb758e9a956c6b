"""What is damaged in a store is found before it is read, and made again with all that came from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runner.test_killed_workers import results
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.plan.graph import Node, Plan
from compresslab.plan.prepare import prepare
from compresslab.runner import attempt as attempting
from compresslab.runner import make as making
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.digests import VERSION, FileDigests
from compresslab.store.done import is_done, to_do
from compresslab.store.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and the store of a run that nothing disturbed. Every test has a copy."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "recipe.yaml").write_text(recipe_text)
    assert not run(prepare(folder / "recipe.yaml"), Store(folder / "store"), Watcher()).failures
    return folder


@pytest.fixture
def plan(undisturbed: Path) -> Plan:
    return prepare(undisturbed / "recipe.yaml")


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Store:
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    return Store(tmp_path / "store")


class Told(Watcher):
    """Keeps what it hears of nodes that are made again."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def again(self, node: Node, why: str) -> None:
        self.lines.append(f"{node.label}: {why}")


def zero(file: Path, start: int = 1000, length: int = 20_000) -> None:
    """Set bytes to zero, and the time of modification back."""
    stat = file.stat()
    with file.open("rb+") as opened:
        opened.seek(start)
        opened.write(bytes(min(length, stat.st_size - start)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_damaged_weights_are_made_again_before_a_step_reads_them(plan: Plan, store: Store, undisturbed: Path) -> None:
    base = plan.variant("base").model
    zero(store.model(base) / "model.safetensors")
    store.discard(plan.variant("pruned").model)
    told = Told()
    assert not run(plan, store, told).failures
    assert told.lines == ["load base: its result in the store is damaged (model/model.safetensors has other bytes than were written)"]
    assert results(store) == results(Store(undisturbed / "store"))


def test_weights_that_are_damaged_while_they_are_read_make_no_child(
    plan: Plan, store: Store, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, pruned = plan.variant("base").model, plan.variant("pruned").model
    store.discard(pruned)
    execute, seen = making.execute, []

    def damaging(job: making.NodeJob | making.ReloadJob, *arguments: object, **named: object) -> object:
        if not seen and isinstance(job, making.NodeJob):
            seen.append(job)
            zero(store.model(base) / "model.safetensors")
        return execute(job, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "execute", damaging)
    told = Told()
    assert not run(plan, store, told).failures
    assert "prune pruned: what it was made from has changed meanwhile" in told.lines
    assert results(store) == results(Store(undisturbed / "store"))


def test_scores_that_are_damaged_are_never_on_the_page(plan: Plan, store: Store, undisturbed: Path) -> None:
    key = plan.node(plan.variant("packed").evaluate).tasks["csqa"]
    zero(store.folder(key) / "items.parquet", 100, 50)
    [node] = to_do(plan, store)
    assert node.label == "evaluate packed"
    assert not run(plan, store, Watcher()).failures
    assert results(store) == results(Store(undisturbed / "store"))


def test_what_was_made_from_another_result_than_the_one_in_the_store_is_made_again(plan: Plan, store: Store, undisturbed: Path) -> None:
    """A parent that is whole but not the one that its children were made from, as another machine's rounding gives it."""
    pruned, healed = plan.variant("pruned").model, plan.variant("healed").model
    record = store.folder(pruned) / "model" / "extra.json"
    record.write_text("{}")
    FileDigests().write(store.folder(pruned), json.loads((store.folder(pruned) / "digests.json").read_text())["made_from"])
    assert not is_done(plan.node(healed), store)
    assert f"made from another {pruned}" in store.problem(healed, None)
    done = CliRunner().invoke(app, ["verify", str(undisturbed / "recipe.yaml"), "--store", str(store.root), "--repair"])
    assert done.exit_code == 0, done.output
    assert "distill healed" in done.output
    assert not store.occupied(healed)
    assert not run(plan, store, Watcher()).failures
    assert store.digests.read(store.folder(healed)).made_from[pruned] == store.content(pruned)


def test_a_disk_that_damages_every_result_is_named(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base = plan.variant("base").model
    store.discard(plan.variant("pruned").model)
    make = attempting.make

    def damaging(node: Node, *arguments: object) -> object:
        outcome = make(node, *arguments)  # type: ignore[arg-type]
        if node.key == base:
            zero(store.model(base) / "model.safetensors")
        return outcome

    zero(store.model(base) / "model.safetensors")
    monkeypatch.setattr(attempting, "make", damaging)
    failures = run(plan, store, Watcher()).failures
    assert "damaged each of 3 times" in failures[base].cause
    assert failures[plan.variant("pruned").model].because == base


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{"), lambda file: file.write_text("")])
def test_digests_that_cannot_be_read_are_as_no_result(damage: Callable[[Path], object], plan: Plan, store: Store) -> None:
    key = plan.variant("packed").model
    file = store.folder(key) / "digests.json"
    assert json.loads(file.read_text())["version"] == VERSION
    damage(file)
    assert [node.label for node in to_do(plan, store)] == ["quantize packed"]


def test_answers_of_a_model_that_was_replaced_are_not_gone_on_from(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Path] = []

    def execute(job: making.NodeJob, *_: object) -> making.Failed:
        job.checkpoints.mkdir(parents=True)
        places.append(job.checkpoints)
        return making.Failed("killed half-way")

    monkeypatch.setattr(making, "execute", execute)
    node = plan.node(plan.variant("base").evaluate)
    for key in node.tasks.values():
        store.discard(key)
    assert node.key in run(plan, store, Watcher()).failures
    replace(store, plan.variant("base").model)
    assert node.key in run(plan, store, Watcher()).failures
    assert places[0].parent == store.checkpoints(node.key)
    assert len({place for place in places if place.parent == store.checkpoints(node.key)}) == 2


def replace(store: Store, key: str) -> None:
    """Put another whole result in the place of one, as another machine's rounding gives it."""
    (store.model(key) / "extra.json").write_text("{}")
    digests = json.loads((store.folder(key) / "digests.json").read_text())
    FileDigests().write(store.folder(key), digests["made_from"])


def test_what_is_stale_because_of_this_run_is_made_again_by_this_run(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading for a new child finds damage, the parent becomes another one, and its other children were cached."""
    base = plan.variant("base").model
    execute = making.execute

    def otherwise(job: making.NodeJob | making.ReloadJob, *arguments: object, **named: object) -> object:
        outcome = execute(job, *arguments, **named)  # type: ignore[arg-type]
        if isinstance(job, making.NodeJob) and job.node.key == base:
            (job.staged / "model" / "extra.json").write_text("{}")
        return outcome

    monkeypatch.setattr(making, "execute", otherwise)
    zero(store.model(base) / "model.safetensors", 10_000)
    store.discard(plan.variant("packed").model)
    store.discard(plan.variant("healed").model)
    told = Told()
    assert not run(plan, store, told).failures
    assert all(is_done(node, store) for node in plan.nodes if node.kind != "gather")


def test_files_that_no_run_wrote_are_not_read_and_not_removed(plan: Plan, store: Store) -> None:
    base, pruned = plan.variant("base").model, plan.variant("pruned").model
    store.discard(pruned)
    (store.model(base) / ".DS_Store").write_text("")
    adapter = store.model(base) / "adapter_config.json"
    adapter.write_text("{}")
    failures = run(plan, store, Watcher()).failures
    assert "adapter_config.json was not written by a run" in failures[pruned].cause
    assert is_done(plan.node(base), store)
    adapter.unlink()
    assert not run(plan, store, Watcher()).failures
