"""The page of a study while it runs, written again as scores come in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from compresslab.plan.graph import Node, Plan
from compresslab.records import Failure
from compresslab.runner.processes import Listener
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

EVERY = 60.0  # seconds between two pages, at least
SHARE = 0.05  # of the run's time that writing pages may take


class GrowingPage(Watcher):
    """A watcher that has the page written when a variant has been evaluated, and passes on all that it hears.

    Times are measured with nothing beside them, so no page is written while a timed node runs.

    Args:
        write: writes the page of what the store holds and of the failures of this run, by node key. What goes wrong with it is passed
            over: the page at the end says so.
    """

    def __init__(self, watcher: Watcher, write: Callable[[Mapping[str, Failure]], object]) -> None:
        self._watcher, self._write = watcher, write
        self._timed: set[str] = set()
        self._failures: dict[str, Failure] = {}
        self._next = time.monotonic() + EVERY

    def planned(self, plan: Plan, store: Store) -> None:
        self._watcher.planned(plan, store)

    def starting(self, node: Node, estimated: float | None) -> Listener:
        if node.timed:
            self._timed.add(node.key)
        return self._watcher.starting(node, estimated)

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        self._watcher.ended(node, seconds, failure)
        self._timed.discard(node.key)
        if failure:
            self._failures[node.key] = Failure(node=node.label, cause=failure)
        if node.kind == "evaluate" and not self._timed and time.monotonic() >= self._next:
            began = time.monotonic()
            with contextlib.suppress(Exception):  # half a study may be what no study is; the page at the end says what is wrong
                self._write(self._failures)
            took = time.monotonic() - began
            self._next = time.monotonic() + max(EVERY, took / SHARE)

    def lost(self, node: Node, cause: str) -> None:
        self._watcher.lost(node, cause)
        self._failures[node.key] = Failure(node=node.label, cause=cause)

    def waiting(self, node: Node, why: str) -> None:
        self._watcher.waiting(node, why)

    def found(self, node: Node) -> None:
        self._watcher.found(node)
        self._failures.pop(node.key, None)

    def again(self, node: Node, why: str) -> None:
        self._timed.discard(node.key)
        self._failures.pop(node.key, None)
        self._watcher.again(node, why)

    def assessing(self, plan: Plan) -> None:
        self._watcher.assessing(plan)
