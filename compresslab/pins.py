"""The pinned data wheels, as data: what they are, where their hash is, what they give."""

from __future__ import annotations

import json
from importlib import resources
from typing import NamedTuple


class Wheel(NamedTuple):
    """A pinned data wheel; `bytes` is its download size."""

    name: str
    version: str
    filename: str
    sha256: str
    bytes: int
    gives: str


def wheels() -> dict[str, Wheel]:
    """All pinned data wheels by name."""
    pinned = json.loads((resources.files("compresslab") / "data" / "offline.json").read_text())
    return {name: Wheel(name, **facts) for name, facts in pinned.items()}
