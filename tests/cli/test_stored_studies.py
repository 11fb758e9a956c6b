"""`compresslab ls`, `show` and `report` of what a store and a folder of reports hold, whole or damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Call

from compresslab.records import StudyNote
from compresslab.store.store import Store


def test_an_empty_place(call: Call, recipe: Path) -> None:
    assert call("ls").out == (
        "no study has run in .compresslab yet, and none of published scores is in reports; "
        "`compresslab init --from quickstart` writes a first recipe\n"
    )
    assert json.loads(call("ls", "--json").out) == []
    result = call("show", "small")
    assert result.code == 2
    assert result.err == "error: no report of a study 'small' in reports; there are: none\n"
    result = call("report", recipe)
    assert result.code == 2
    assert f"nothing of {recipe} has run yet in .compresslab; `compresslab run {recipe}` makes it" in result.err
    assert not Path("reports").exists()
    assert not Path(".compresslab").exists()


N = 134_515_008
SIZE = {"parameters": N, "counted": N, "active": N, "nonzero": N, "stored_bytes": 2 * N, "effective_bits": 16.0}
WIDTHS = {"hidden": 576, "intermediate": 1536, "attention_width": 576, "key_value_width": 192, "vocabulary": 49152}
SHAPE = {"architecture": "llama", "layers": 30, **WIDTHS}
STEP = {"version": 1, "kind": "base", "method": "load", "config": {}, "seed": 0, "size": SIZE, "shape": SHAPE}


def keep(store: Store, key: str, record: str = json.dumps(STEP)) -> None:
    """Put the base's record into a store."""
    with store.stage(key) as staged:
        (staged / "record.json").write_text(record)
        store.commit(key, staged)


def test_ls_lists_studies(call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept")
    key = "0123456789abcdef01234567"
    keep(store, key)
    variants = {"base": {"model": key}, "depth-24-healed-nf4": {"model": "f" * 24}}
    store.remember("a-study", StudyNote(recipe="r.yaml", finished="2026-11-21T20:00:00+00:00", variants=variants))
    out = call("ls", "--store", "kept").out
    assert "a-study: 2 variants, last run 2026-11-21T20:00:00+00:00" in out
    assert re.search(r"base +134\.5 M +269 MB +kept/objects/0123456789abcdef01234567/model", out)
    assert re.search(r"depth-24-healed-nf4 +- +- +not made", out)
    rows = json.loads(call("ls", "--store", "kept", "--json").out)
    assert [(row["variant"], row["stored_bytes"]) for row in rows] == [("base", 2 * N), ("depth-24-healed-nf4", None)]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("", "is damaged: it is no whole JSON"),
        (json.dumps(STEP)[:-9] + " " * 9, "is damaged: it is no whole JSON"),
        (json.dumps({**STEP, "version": 0}), "by an older one"),
        (json.dumps({**STEP, "version": 9}), "by a newer one"),
        (json.dumps(STEP).replace('"seed": 0', '"sead": 0'), "is damaged: seed is missing"),
    ],
)
def test_ls_names_what_it_cannot_read_and_goes_on(left: str, said: str, call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept")
    keep(store, "a" * 24, left)
    keep(store, "b" * 24)
    variants = {"base": {"model": "a" * 24}, "other": {"model": "b" * 24}}
    store.remember("a-study", StudyNote(recipe="r.yaml", finished="", variants=variants))
    told = call("ls", "--store", "kept", "--json")
    assert told.code == 0
    rows = json.loads(told.out)
    assert said in rows[0]["problem"]
    assert (rows[0]["model"], rows[1]["problem"], rows[1]["stored_bytes"]) == (None, "", 2 * N)
    out = " ".join(call("ls", "--store", "kept").out.split())
    assert said in out
    assert "the next run makes it again" in out


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("", "is damaged: it is no whole JSON"),
        ('{"version": 1, "recipe"', "is damaged: it is no whole JSON"),
        ("[]", "is damaged: it is no record"),
        ('{"recipe": "r.yaml", "finished": "", "variants": {}}', "by an older one"),
        ('{"version": 9}', "by a newer one"),
        ('{"version": 2, "recipe": "r.yaml", "finished": ""}', "variants is missing"),
    ],
)
def test_ls_names_a_note_that_it_cannot_read_and_goes_on(left: str, said: str, call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept")
    store.remember("good", StudyNote(recipe="r.yaml", finished="", variants={"base": {"model": "f" * 24}}))
    (store.studies / "bad.json").write_text(left)
    told = call("ls", "--store", "kept", "--json")
    assert [row["study"] for row in json.loads(told.out)] == ["good"]
    assert "warning: kept/studies/bad.json " in told.err
    assert said in told.err
    assert told.err.endswith("run the recipe of bad once more, or remove this file if the study may go\n")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A report of a study with a base and nothing else, whose question is full of what a terminal could mistake for style."""
    variant = {"name": "base", "parent": "", "root": "base", "steps": [STEP]}
    where = {
        "recipe_sha256": "",
        "recipe_path": "",
        "commit": "",
        "dirty": False,
        "versions": {},
        "python": "",
        "machine": "",
        "cores": 2,
        "memory_bytes": 0,
    }
    study = {
        "version": 1,
        "study": "a-study",
        "question": "Is [/this] [red]text?",
        "base": "m",
        "recipe": "",
        "variants": [variant],
        "seconds": 1.0,
        "cached_nodes": 0,
        "nodes": 1,
    }
    path = tmp_path / "reports" / "a-study" / "study.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**study, "provenance": {**where, "finished": ""}}))
    return path


def test_show(call: Call, reports: Path) -> None:
    result = call("show", "a-study")
    assert result.code == 0
    assert result.out.startswith("Is [/this] [red]text?")
    assert re.search(r"base +134\.5 M +269 MB", result.out)
    assert json.loads(call("show", "a-study", "--json").out)["study"] == "a-study"
    assert json.loads(call("show", "a-study", "base", "--json").out)["name"] == "base"
    assert call("show", "a-study", "base").out == (
        "base of a-study: the base, m\n134.5 M parameters; 269 MB stored, 16.0 bits a parameter\n"
        "everything that is recorded: compresslab show a-study base --json\n"
    )
    assert reports.exists()


@pytest.mark.usefixtures("reports")
def test_show_suggests_names(call: Call) -> None:
    assert call("show", "a-studdy").err.endswith("there are: a-study; did you mean 'a-study'?\n")
    result = call("show", "a-study", "bas")
    assert result.code == 2
    assert result.err == "error: a-study has no variant 'bas'; it has: base; did you mean 'base'?\n"


READERS = [("show", "a-study"), ("show", "a-study", "base"), ("compare", "a-study", "a-study"), ("export", "a-study", "base", "out")]


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize(
    ("change", "result"),
    [
        (lambda _: b"", "is damaged: it is no whole JSON"),
        (lambda old: old[: len(old) // 2], "is damaged: it is no whole JSON"),
        (lambda _: b"\xff\xfe\x00{", "is damaged"),
        (lambda _: b"[" * 100_000, "is damaged: it is no whole JSON"),
        (lambda _: b'{"study": "a-study"}', "was not written by this version of compresslab but by an older one"),
        (
            lambda old: old.replace(b'"version": 1', b'"version": 99', 1),
            "was not written by this version of compresslab but by a newer one",
        ),
        (lambda old: old.replace(b'"question"', b'"quest"'), "is damaged: question is missing"),
        (lambda old: old.replace(b'"seed": 0', b'"seed": "x"'), "is damaged: variants.0.steps.0.seed is not what it should be"),
    ],
    ids=["empty", "cut off", "binary", "deep", "older", "newer", "a missing field", "a wrong field"],
)
def test_a_report_that_cannot_be_read_is_told_in_one_line(
    change: Callable[[bytes], bytes], result: str, command: tuple[str, ...], call: Call, reports: Path
) -> None:
    reports.write_bytes(change(reports.read_bytes()))
    output = call(*command)
    assert output.code == 2
    assert f"study.json {result}" in output.err
    assert output.err.endswith("; `compresslab report RECIPE` writes it again\n")
    assert output.err.count("\n") == 1
