"""How the tests speak of a call of the command line; the fixture `call` (conftest.py) makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Said(NamedTuple):
    """How a call of the command line ended and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]
