"""Write the references that ship with the package: `python -m tools.references.fit [NAME ...]`.

The output is deterministic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compresslab.density.references.build import reference_json
from compresslab.density.references.family import build_family
from tools.references.family_scores import LLAMA, QWEN, read_family
from tools.references.ladder import build_ladder
from tools.references.pythia import build_pythia

BUILDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "olmo-ladder": build_ladder,
    "pythia": build_pythia,
    "qwen2.5": lambda: build_family(read_family(QWEN)),
    "llama-1-2": lambda: build_family(read_family(LLAMA)),
}


def main(names: list[str]) -> None:
    """Write the named references, or all, into the package's data folder."""
    folder = Path(__file__).resolve().parents[2] / "compresslab" / "data" / "references"
    for name in names or BUILDERS:
        path = folder / f"{name}.json"
        path.write_text(reference_json(BUILDERS[name]()), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
