"""A store in order: `gc` frees what no study uses and nothing else, `verify` finds what is no longer what was written."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from models.tiny import make_tokenizer
from typer.testing import CliRunner

import compresslab
from compresslab.cli.main import app
from compresslab.errors import RunFailed
from compresslab.evaluation.engines.encodings import Encodings
from compresslab.machine.this_machine import Machine
from compresslab.plan.keys import KEY_LENGTH
from compresslab.plan.prepare import prepare
from compresslab.records import ItemScores, StepRecord
from compresslab.records.compute import Compute
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.done import results, to_do
from compresslab.store.store import Store
from compresslab.store.upkeep import damages, note, remove, unused
from compresslab.studies.rescore import compare_answers

runner = CliRunner()


def call(*arguments: str | Path) -> str:
    done = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_what_recipes_no_longer_have_is_freed_and_the_rest_stays(short: Path, store: Store, tmp_path: Path) -> None:
    everything = {path.name for path in store.objects.iterdir()}
    assert "nothing to free" in call("gc", "--store", store.root)
    # another item count gives other scores; a run with a change keeps what the recipe as it stands uses
    call("run", short, "--limit", 3, "--store", store.root, "--reports", tmp_path / "reports")
    more = {path.name for path in store.objects.iterdir()}
    assert "nothing to free" in call("gc", "--store", store.root)
    call("run", short, "--store", store.root, "--reports", tmp_path / "reports")
    (store.root / "checkpoints" / "abandoned").mkdir(parents=True)
    told = json.loads(call("gc", "--json", "--store", store.root))
    assert {Path(one["path"]).name for one in told["unused"]} >= (more - everything) | {"abandoned"}
    assert {path.name for path in store.objects.iterdir()} == more
    asked = runner.invoke(app, ["gc", "--store", str(store.root)], input="n\n")
    assert "nothing was freed" in asked.output
    assert "freed" in call("gc", "--yes", "--store", store.root)
    assert {path.name for path in store.objects.iterdir()} == everything
    assert not to_do(prepare(short), store)


def test_what_a_run_has_a_lease_of_is_not_freed(store: Store) -> None:
    making = store.staging / "0abc-x"
    making.mkdir(parents=True)
    abandoned = store.root / "checkpoints" / "0abc"
    abandoned.mkdir(parents=True)
    with Store(store.root).leases.held("0abc"):
        assert [one.path for one in unused(store)] == [abandoned]
        assert remove(unused(store), store) == 0
        assert abandoned.exists()
    assert {one.path for one in unused(store)} == {making, abandoned}


def test_what_a_run_began_to_use_after_it_was_listed_is_not_freed(short: Path, store: Store) -> None:
    note = store.note("tiny")
    kept = note.read_bytes()
    note.unlink()
    listed = unused(store)
    assert listed
    note.write_bytes(kept)  # what a run notes before it looks for what is cached
    assert remove(listed, store) == 0
    assert not to_do(prepare(short), store)


def test_a_long_plan_lists_only_what_is_to_run(short: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "prune pruned" in call("plan", short, "--store", store.root)
    monkeypatch.setattr("compresslab.cli.plan.MAX_LISTED_NODES", 2)
    told = call("plan", short, "--store", store.root)
    assert "5 nodes, 5 of them cached" in told
    assert "prune pruned" not in told
    shutil.rmtree(store.folder(prepare(short).variant("pruned").model))
    told = call("plan", short, "--store", store.root)
    assert "4 of them cached" in told
    assert "prune pruned" in told


OTHER = Machine(Compute("bfloat16", "cuda:0", "cuda"), {"accelerator": "another one"}, "1 x another one")


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Plan as on another machine."""
    monkeypatch.setattr("compresslab.plan.prepare.machine_for", lambda *_: machine)


def test_a_run_on_another_machine_or_in_another_dtype_leaves_the_results_of_the_first(
    short: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not unused(store)
    with monkeypatch.context() as patch:
        on(patch, OTHER)
        there = prepare(short)
        note(there, store)
    assert not unused(store)
    note(prepare(short), store)
    assert not unused(store)
    used = set(store.notes()["tiny"].keys or ())
    assert {node.key for node in there.nodes} <= used


def test_another_recipe_of_the_same_study_keeps_its_results_until_it_is_gone(short: Path, store: Store, tmp_path: Path) -> None:
    everything = {path.name for path in store.objects.iterdir()}
    store.note("tiny").unlink()
    note(prepare(short), store)
    other = tmp_path / "other.yaml"
    other.write_text(short.read_text().replace("items: 12", "items: 3"))
    note(prepare(other), store)
    assert not unused(store)
    note(prepare(short), store)
    assert {node.key for node in prepare(other).nodes} | everything <= set(store.notes()["tiny"].keys or ())
    short.unlink()
    note(prepare(other), store)
    assert not unused(store)
    assert {one.path.name for one in unused(store, gone=True)} & everything
    assert not {one.path.name for one in unused(store, gone=True)} & {node.key for node in prepare(other).nodes}


def test_report_and_verify_read_what_ran_wherever_it_ran(
    short: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = prepare(short)
    on(monkeypatch, OTHER)
    assert len(to_do(prepare(short), store)) > len(to_do(ours, store))
    assert prepare(short, noted=store.notes()).compute == ours.compute
    before = json.loads((tmp_path / "reports" / "tiny" / "study.json").read_text())
    call("report", short, "--store", store.root, "--reports", tmp_path / "reports")
    after = json.loads((tmp_path / "reports" / "tiny" / "study.json").read_text())
    assert [variant["scores"] for variant in after["variants"]] == [variant["scores"] for variant in before["variants"]]
    assert after["provenance"]["compute"] == before["provenance"]["compute"]
    told = json.loads(call("verify", short, "--json", "--store", store.root))
    assert told["checked"] == sum(len(node.tasks) or 1 for node in ours.nodes)


RUN = {"compute": ["float32", "cpu", "cpu"], "machine": "another", "keys": []}


@pytest.mark.parametrize(
    "facts", [{"threads": float("inf")}, {"threads": 0}, {"threads": True}, {"memory_gib": 15.5}, {"memory_gib": "16"}]
)
@pytest.mark.usefixtures("short")
def test_facts_that_are_no_counts_make_a_note_unreadable(store: Store, facts: dict[str, object]) -> None:
    place = store.note("tiny")
    written = json.loads(place.read_text())
    place.write_text(json.dumps({**written, "runs": {"a": {**RUN, "facts": {"threads": 8, "memory_gib": 16}}}}))
    assert "tiny" in store.notes()
    place.write_text(json.dumps({**written, "runs": {"a": {**RUN, "facts": facts}}}))
    assert "tiny" not in store.notes()


@pytest.mark.parametrize("runs", [[], {"a": 3}, {"a": {"keys": 3}}, {"a": {"keys": [], "compute": 3, "facts": {}, "machine": ""}}])
def test_runs_that_a_note_does_not_tell_rightly_are_as_none(short: Path, store: Store, runs: object) -> None:
    place = store.note("tiny")
    place.write_text(json.dumps({**json.loads(place.read_text()), "runs": runs}))
    assert "tiny" not in store.notes()
    note(prepare(short), store)
    assert not unused(store)


@pytest.mark.parametrize("change", [{"version": 3}, {"finished": 3}, {"runs": {"broken": {"keys": 3}}}])
def test_runs_of_other_machines_survive_a_note_that_cannot_be_read(short: Path, store: Store, change: dict[str, object]) -> None:
    elsewhere = {
        "recipe": "/elsewhere.yaml",
        "compute": ["float32", "cuda:0", "cuda"],
        "machine": "another",
        "facts": {},
        "keys": ["0" * KEY_LENGTH],
    }
    (store.objects / elsewhere["keys"][0]).mkdir()
    written = json.loads(store.note("tiny").read_text())
    runs = {**written["runs"], "elsewhere": elsewhere, **change.pop("runs", {})}  # type: ignore[dict-item]
    store.note("tiny").write_text(json.dumps({**written, **change, "runs": runs}))
    assert "tiny" not in store.notes()
    note(prepare(short), store)
    assert store.notes()["tiny"].runs["elsewhere"].machine == "another"
    assert not unused(store)


def test_a_result_without_its_cost_is_whole(short: Path, store: Store) -> None:
    plan = prepare(short)
    (store.folder(plan.variant("pruned").model) / "cost.json").unlink()
    assert damages(store, {key: kind for node in plan.nodes for key, kind in results(node).items()}) == []
    assert to_do(plan, store) == []


def test_token_ids_that_were_not_read_for_long_are_freed(store: Store) -> None:
    kept = sorted(store.encodings.iterdir())
    assert kept, "the evaluation kept some"
    assert [one for one in unused(store) if one.path.parent == store.encodings] == []
    old, litter = kept[0], store.encodings / ".0123-part.npz"
    litter.write_bytes(b"half")
    os.utime(old, (0, 0))
    found = {one.path: one.why for one in unused(store) if one.path.parent == store.encodings}
    assert found == {old: "token ids of tasks that were not read for 30 days", litter: "what a dead run left"}
    shutil.rmtree(store.studies)
    assert {one.path for one in unused(store) if one.path.parent == store.encodings} == {*kept, litter}


def test_token_ids_are_as_young_as_their_last_reading(tmp_path: Path) -> None:
    encodings = Encodings(tmp_path, make_tokenizer())
    for _ in range(2):
        encodings.encoded([("a", "b")], "", lambda pairs: [[1, 2] for _ in pairs])
        (file,) = tmp_path.iterdir()
        assert time.time() - file.stat().st_mtime < 1000
        os.utime(file, (0, 0))


def test_a_stopped_run_loses_nothing_to_gc(short: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    class Stop(Watcher):
        def ended(self, *_: object) -> None:
            raise KeyboardInterrupt

    plan = prepare(short)
    note(plan, store)
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, Stop())
    assert len(list(store.objects.iterdir())) == 1
    assert not unused(store)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"keys": 3}'])
def test_nothing_is_freed_while_a_note_does_not_say_what_its_study_uses(short: Path, store: Store, tmp_path: Path, content: str) -> None:
    [path] = store.studies.glob("*.json")
    everything = {entry.name for entry in store.objects.iterdir()}
    path.write_text(content)
    with pytest.raises(RunFailed, match=f"{path.name} .*run the recipe of tiny once more, or remove this file.*nothing can be freed"):
        unused(store)
    # A run of a part of the study does not know what the whole uses.
    call("run", short, "--limit", 3, "--store", store.root, "--reports", tmp_path / "reports")
    with pytest.raises(RunFailed, match="does not say"):
        unused(store)
    call("run", short, "--store", store.root, "--reports", tmp_path / "reports")
    freed = {entry.path.name for entry in unused(store) if entry.path.parent == store.objects}
    assert freed
    assert not freed & everything


@pytest.mark.parametrize("kind", ["changed", "cut", "gone", "added", "no digests"])
def test_damage_is_found_and_repaired(short: Path, store: Store, tmp_path: Path, kind: str) -> None:
    plan = prepare(short)
    assert "7 results of 7 are there; 7 are as they were written" in call("verify", short, "--store", store.root)
    key = plan.variant("pruned").model
    weights = store.model(key) / "model.safetensors"
    content = weights.read_bytes()
    if kind == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "cut":
        os.truncate(weights, 100)
    elif kind == "gone":
        weights.unlink()
    elif kind == "added":
        (store.model(key) / "model-2.safetensors").write_bytes(b"")
    else:
        (store.folder(key) / "digests.json").unlink()
    words = {
        "changed": "has other bytes",
        "cut": "has 100 bytes",
        "gone": "is missing",
        "added": "not written by a run",
        "no digests": "unreadable",
    }
    failed = runner.invoke(app, ["verify", str(short), "--store", str(store.root)])
    assert isinstance(failed.exception, RunFailed)
    assert words[kind] in str(failed.exception)
    assert "prune pruned" in str(failed.exception)
    call("verify", short, "--repair", "--store", store.root)
    assert not store.has(key)
    call("run", short, "--store", store.root, "--reports", tmp_path / "reports")
    assert not damages(store, {key: StepRecord})


def test_a_report_over_a_gap_says_what_is_missing_and_reads_nothing_wrongly(short: Path, store: Store, tmp_path: Path) -> None:
    """A chain whose middle cannot be used is not told as if it were shorter, and its scores are not told of another size."""
    short.write_text(
        short.read_text().replace(
            "variants:", "variants:\n  packed: {from: pruned, steps: [{quantize: {method: rtn, bits: 8, group_size: 32}}]}"
        )
    )
    where = ("--store", store.root, "--reports", tmp_path / "reports")
    call("run", short, *where)
    plan = prepare(short)
    os.truncate(store.folder(plan.variant("pruned").model) / "record.json", 20)
    call("report", short, *where)
    study = compresslab.read_study(tmp_path / "reports" / "tiny")
    by_name = {variant.name: variant for variant in study.variants}
    for name in ("pruned", "packed"):
        variant = by_name[name]
        assert (len(variant.steps), variant.scores, variant.density) == (1, [], None)
        [failure] = variant.failures
        assert failure.node == "prune pruned"
        assert failure.cause.startswith("its result in the store cannot be used (record.json has 20 bytes")
    assert by_name["base"].density is not None
    assert "prune pruned" in (tmp_path / "reports" / "tiny" / "index.html").read_text()
    call("run", short, *where)
    assert not any(variant.failures for variant in compresslab.read_study(tmp_path / "reports" / "tiny").variants)
    os.truncate(store.folder(plan.variant("base").model) / "record.json", 20)
    refused = runner.invoke(app, ["report", str(short), *map(str, where)])
    assert "load base: its result in the store cannot be used" in str(refused.exception)


def test_a_variant_answers_again_what_is_stored(short: Path, store: Store) -> None:
    told = json.loads(call("verify", short, "pruned", "--json", "--store", store.root))
    assert (told["rescored"]["holds"], told["rescored"]["largest"], told["rescored"]["items"]) == (True, 0.0, 12)


def test_scores_that_changed_are_told() -> None:
    then = ItemScores(task="t", item=["0", "1"], bits_per_byte=[1.0, 2.0], correct=[1.0, 0.0], choice=[0, 1], gold=[0, 0])
    assert compare_answers(then, then).holds
    assert compare_answers(then, then.model_copy(update={"bits_per_byte": [1.0, 2.001]})).holds
    assert not compare_answers(then, then.model_copy(update={"bits_per_byte": [1.0, 2.1]})).holds
    assert not compare_answers(then, then.model_copy(update={"choice": [0, 2]})).holds
