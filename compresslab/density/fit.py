"""Write the references that ship with the package: `python -m compresslab.density.fit [NAME ...]`.

The same code and tables give the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from compresslab.density.family import LLAMA, QWEN, build_family
from compresslab.density.ladder import build_ladder
from compresslab.density.pythia import build_pythia

BUILDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "olmo-ladder": build_ladder,
    "pythia": build_pythia,
    "qwen2.5": partial(build_family, QWEN),
    "llama-1-2": partial(build_family, LLAMA),
}


def as_text(built: dict[str, Any]) -> str:
    """A reference as JSON, one line a field, so that a change of a fit can be read in a diff."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in built.items() if key != "tasks"]
    tasks = []
    for task, entry in built["tasks"].items():
        inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        tasks.append(f"{json.dumps(task)}: {{\n{inner}\n}}")
    lines.append('"tasks": {\n' + ",\n".join(tasks) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(names: list[str]) -> None:
    """Write the named references, or all, into the package's data folder."""
    folder = Path(__file__).resolve().parent.parent / "data" / "references"
    for name in names or BUILDERS:
        path = folder / f"{name}.json"
        path.write_text(as_text(BUILDERS[name]()), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
