"""What `compresslab doctor` finds, one line at a time."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the examination. `well` is `None` for what is neither good nor bad."""

    what: str
    well: bool | None
    said: str
