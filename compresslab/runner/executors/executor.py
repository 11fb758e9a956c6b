"""What every executor does: it starts what the schedule says, and tells what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from compresslab.plan.graph import Node
from compresslab.runner.attempt import Outcome
from compresslab.runner.messages import Progressed
from compresslab.runner.schedule import Host, Start


class Starting(NamedTuple):
    """The worker of a node is about to start."""

    key: str


class Begun(NamedTuple):
    """The worker of a node runs under this process id."""

    key: str
    pid: int


class Moved(NamedTuple):
    """A node has come further."""

    key: str
    progressed: Progressed


class Pending(NamedTuple):
    """A node has been asked for and does not start; `why` says what it waits for."""

    key: str
    why: str


class Over(NamedTuple):
    """An attempt to make a node has ended."""

    key: str
    outcome: Outcome


class Broken(NamedTuple):
    """An attempt has raised what it never should."""

    key: str
    error: BaseException


Event = Starting | Begun | Moved | Pending | Over | Broken


class Executor(Protocol):
    """Runs nodes."""

    def hosts(self) -> Sequence[Host]:
        """Where nodes may run now. A host that is lost is not among them any more."""

    def start(self, node: Node, start: Start) -> None:
        """Start an attempt to make a node."""

    def event(self, seconds: float) -> Event | None:
        """What happened, waited for so many seconds at most.

        Raises:
            KeyboardInterrupt: a signal came.
        """

    def stop(self) -> None:
        """End all attempts that still run, and wait until they have ended: nobody writes into the store any more."""
