"""The store: results appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compresslab.records import Cost
from compresslab.runner.store import Store, write_record

COST = Cost(seconds=1.0, peak_memory_bytes=2, started="2026-01-01T00:00:00+00:00", threads=2, device="cpu")


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
    dead, living = store.staging / "999999999-key-x", store.staging / f"{os.getpid()}-key-x"
    dead.mkdir(parents=True)
    living.mkdir()
    store.sweep()
    assert not dead.exists()
    assert living.exists()


def test_a_broken_note_of_a_study_does_not_hide_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember("good", {"variants": {}})
    (store.studies / "bad.json").write_text("{")
    (store.studies / "worse.json").write_text("[]")
    (store.studies / "worst.json").write_text("{}")
    assert store.remembered() == {"good": {"variants": {}}}
