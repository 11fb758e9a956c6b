"""How the tests speak of a call of the command line, and the recipe that most of them make; the fixtures are in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
RECIPE = """study: small
base: {model: offline:smollm2-135m-instruct}
variants:
  depth: [{prune: {method: depth, keep: 24}}]
evaluate: {tasks: [arc_easy], items: 10}
"""


class Said(NamedTuple):
    """How a call of the command line ended and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]
