"""Progress reports of long computations."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Amount(NamedTuple):
    """The amount done, the total, and their unit, in which a rate is displayed: "tokens", "items"."""

    done: float
    total: float
    unit: str


class Progress(Protocol):
    """A function that receives the share done in [0, 1], a description of the work, and the amounts behind the share if known."""

    def __call__(self, share: float, text: str, amount: Amount | None = None, /) -> None:
        """Receive a report."""


def silent(share: float, text: str, amount: Amount | None = None, /) -> None:
    """Ignores progress reports."""
