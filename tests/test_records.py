"""Records as JSON: what any reader of JSON takes, and the same record back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from compresslab.records import Cost, Interval
from compresslab.runner.store import write_record


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
    cost = Cost(seconds=1.5, peak_memory_bytes=2, started="2026-01-01T00:00:00+00:00", threads=2, device="cpu")
    write_record(tmp_path, cost, "a.json")
    write_record(tmp_path, cost.model_copy(), "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
