"""The contract suite's table of supported methods by architecture, with refusals. `make contract` prints it for docs/methods.md.

A cell that says "yes" is a pair that every test of the suite passes; a number stands for the message with which the method refuses, taken
from the method itself as the table is made.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.tiny import ARCHITECTURES, make

from compresslab.errors import UnsupportedModel
from compresslab.steps.contract import run
from steps.methods import METHOD_CONFIGS, PASSING, context

BEGIN, END = "<!-- contract table: make contract -->", "<!-- end of the contract table -->"


def table() -> str:
    """The table in Markdown, with its footnotes."""
    reasons: list[str] = []
    head = ["method", *ARCHITECTURES]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method in METHOD_CONFIGS:
        cells = ["yes" if (method, name) in PASSING else _number(_refusal(method, name), reasons) for name in ARCHITECTURES]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def _refusal(method: str, name: str) -> str:
    kind, config = METHOD_CONFIGS[method]
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(kind, config, make(name), context(method, name), Path(folder) / "model")
        except UnsupportedModel as error:
            return str(error)
    raise AssertionError(f"{method} on {name} is said to be refused and is not")


def _number(reason: str, reasons: list[str]) -> str:
    if reason not in reasons:
        reasons.append(reason)
    return str(reasons.index(reason) + 1)


if __name__ == "__main__":
    print(table())
