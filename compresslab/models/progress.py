"""What work tells of how far it has come."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Amount(NamedTuple):
    """How much is done, of how much, in a unit that a rate can be told in: "tokens", "items"."""

    done: float
    total: float
    unit: str


class Progress(Protocol):
    """Hears the share done in [0, 1], what is going on, and where it is known the amount behind the share."""

    def __call__(self, share: float, text: str, amount: Amount | None = None, /) -> None:
        """Hear it."""


def silent(share: float, text: str, amount: Amount | None = None, /) -> None:
    """A progress report that nobody reads."""
