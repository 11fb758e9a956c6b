"""Records as JSON: what any reader of JSON takes, and the same record back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from report.studies import quickstart

from compresslab.records import (
    Cost,
    Interval,
    MachineSpeed,
    StepRecord,
    StoredRecord,
    StudyNote,
    StudyRecord,
    TaskScore,
    TextDivergence,
    Timing,
    UnreadableRecord,
    read_record,
)
from compresslab.records.compute import Probe
from compresslab.store.store import write_record

COST = Cost(seconds=1.5, peak_memory_bytes=2, started="2026-01-01T00:00:00+00:00", threads=2, device="cpu")


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("record", [Interval(value=1.0, low=0.0, high=math.inf), Interval(value=1e300, low=-math.inf, high=math.nan)])
def test_numbers_that_are_not_finite_are_json_all_the_same(record: Interval, tmp_path: Path) -> None:
    write_record(tmp_path, record)
    for text in (record.model_dump_json(), (tmp_path / "record.json").read_text()):
        json.loads(text, parse_constant=no_constant)
        back = Interval.model_validate_json(text)
        assert repr(back) == repr(record)


def test_equal_records_are_equal_bytes(tmp_path: Path) -> None:
    cost = COST
    write_record(tmp_path, cost, "a.json")
    write_record(tmp_path, cost.model_copy(), "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_every_record_that_is_a_file_of_its_own_says_its_version() -> None:
    kinds = {Cost, MachineSpeed, Probe, StepRecord, StudyNote, StudyRecord, TaskScore, TextDivergence, Timing}
    assert set(StoredRecord.__subclasses__()) == kinds
    assert all(isinstance(kind.model_fields["version"].default, int) for kind in kinds)
    assert json.loads(COST.model_dump_json())["version"] == 1


def test_a_stored_record_is_read_back(tmp_path: Path) -> None:
    write_record(tmp_path, COST)
    assert read_record(tmp_path / "record.json", Cost, "") == COST


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "is damaged: it is no whole JSON"),
        (lambda old: old[:-3], "is damaged: it is no whole JSON"),
        (lambda _: b"\x80", "is damaged: it is no whole JSON"),
        (lambda _: b"{" + b'"a":{' * 100_000, "is damaged: it is no whole JSON"),
        (lambda _: b"[1]", "is damaged: it is no record"),
        (lambda _: b"{}", "was not written by this version of compresslab but by an older one (its form is 0, and this one reads 1)"),
        (lambda old: old.replace(b'"version": 1', b'"version": "1"'), "is damaged: it is no record"),
        (lambda old: old.replace(b'"version": 1', b'"version": 7'), "but by a newer one (its form is 7, and this one reads 1)"),
        (lambda old: old.replace(b'"threads"', b'"treads"'), "is damaged: threads is missing"),
        (lambda old: old.replace(b"1.5", b'"x"'), "is damaged: seconds is not what it should be"),
        (lambda old: old.replace(b"{", b'{"more": 1,', 1), "is damaged: more is not what it should be"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_in_one_sentence(change: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    write_record(tmp_path, COST)
    path = tmp_path / "record.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UnreadableRecord) as caught:
        read_record(path, Cost, "run again")
    assert said in str(caught.value)
    assert str(caught.value) == f"{path} {caught.value.problem}; run again"
    assert "\n" not in str(caught.value)


def test_a_record_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecord, match="is missing; run again"):
        read_record(tmp_path / "record.json", Cost, "run again")
    with pytest.raises(UnreadableRecord, match="cannot be read"):
        read_record(tmp_path, Cost, "run again")


def test_a_study_of_the_form_before_is_read_as_one_where_nobody_looked(tmp_path: Path) -> None:
    """Pages that exist stay readable, and are written in the form of now."""
    study = quickstart()
    content = json.loads(study.model_dump_json())
    for variant in content["variants"]:
        del variant["fidelity"], variant["divergence"]
    path = tmp_path / "study.json"
    path.write_text(json.dumps({**content, "version": 1}))
    assert read_record(path, StudyRecord, "") == study
    assert study.version > 1
    path.write_text(json.dumps({**content, "version": 0}))
    with pytest.raises(UnreadableRecord, match="but by an older one"):
        read_record(path, StudyRecord, "")


def test_refits_of_form_1_are_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "reports" / "smollm2-quickstart" / "study.json"
    old = json.loads(page.read_text())
    refit = {"law": "precision", "coefficients": [{"name": "a", "value": 1.0, "error": 0.1, "published": None}]}
    old |= {"version": 1, "laws": {**old["laws"], "refits": [refit]}}
    (tmp_path / "study.json").write_text(json.dumps(old))
    read = read_record(tmp_path / "study.json", StudyRecord, "run again")
    assert read.laws is not None
    assert read.laws.refits == []
    assert read.laws.predictions
