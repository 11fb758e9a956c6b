"""The findings of `compresslab doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of `compresslab doctor`. `works` is `None` for information that is neither good nor bad."""

    name: str
    works: bool | None
    message: str
