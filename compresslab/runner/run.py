"""Run the nodes of a plan that the store lacks. Several runs may share a store: each result is made by one of them."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from compresslab.errors import RunFailed
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Node, Plan
from compresslab.records import Failure
from compresslab.runner.machine_share import machine_share
from compresslab.runner.make import Disturbed, make
from compresslab.runner.messages import Failed
from compresslab.runner.watcher import Watcher
from compresslab.runner.worker import explained
from compresslab.store.digests import DamagedDigests
from compresslab.store.done import RECORDS, is_done, to_do
from compresslab.store.leases import POLL, Lease
from compresslab.store.store import Store

# How often a node is made again because its result is damaged or may not be kept: a disk that damages it each time is not to be trusted.
MADE_AGAIN = 2
LONGEST_PAUSE = 2.0  # seconds between two looks at what other runs have made
MEASURED = "times are measured while nothing else computes on this machine, and another run does"
MEASURES = "another run measures times on this machine, which nothing may disturb"


class RunResult(NamedTuple):
    """What running a plan came to: failures by node key, how many nodes this run did not make, and its seconds."""

    failures: dict[str, Failure]
    cached: int
    seconds: float


def run(plan: Plan, store: Store, watcher: Watcher, *, trust_code: bool = False) -> RunResult:
    """Make every result that the store lacks. A node that fails takes those that need it with it, and nothing else.

    What another run is making is waited for. What a node reads is compared with its digests first, and made again if it is damaged.
    `trust_code` runs programs of the model without a sandbox.

    Raises:
        RunFailed: the disk has too little room for what is to be made.
        KeyboardInterrupt: with the store clean and everything finished kept.
    """
    began = time.perf_counter()
    store.sweep()
    todo = to_do(plan, store)
    check_disk(todo, plan, store)
    runner = _Runner(plan, store, watcher, todo, trust_code)
    runner.run()
    store.sweep()
    return RunResult(runner.failures, len(plan.nodes) - len(runner.worked), time.perf_counter() - began)


def check_disk(todo: Sequence[Node], plan: Plan, store: Store) -> None:
    """Refuse a run that the disk cannot hold.

    Raises:
        RunFailed: saying how much is missing.
    """
    needed = sum(estimate(node, plan).disk or 0 for node in todo)
    place = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise RunFailed(
            f"the disk of {store.root} has {free / 1e9:.1f} GB free and this study needs about {needed / 1e9:.1f} GB; "
            "free some, or put the store elsewhere with --store"
        )


class _Runner:
    """One run of a plan.

    Attributes:
        failures: by node key. worked: keys of the nodes that this run made, or that failed.
    """

    def __init__(self, plan: Plan, store: Store, watcher: Watcher, todo: Sequence[Node], trust_code: bool) -> None:
        self.plan, self.store, self.watcher, self.trust_code = plan, store, watcher, trust_code
        self.nodes = {node.key: node for node in plan.nodes}
        self.failures: dict[str, Failure] = {}
        self.worked: set[str] = set()
        self._awaited = {node.key for node in todo}
        self._again: Counter[str] = Counter()
        self._why: dict[str, str] = {}

    def run(self) -> None:
        """Try the nodes in order until each is done or has failed. What is gathered is made when a step needs it."""
        wanted = [node for node in self.plan.nodes if node.kind != "gather"]
        # A result that is made again may be another one than before. What was made from that is then to be made again, too.
        while pending := [node for node in wanted if node.key not in self.failures and not is_done(node, self.store)]:
            pause = POLL
            while pending:
                left = [node for node in pending if not self._settle(node)]
                if len(left) == len(pending):
                    self.watcher.waiting(left[0], self._why.get(left[0].key) or self._why_waiting(left[0]))
                    time.sleep(pause)
                    pause = min(pause * 1.5, LONGEST_PAUSE)
                pending = left
        for node in wanted:
            self._found(node)

    def _settle(self, node: Node) -> bool:
        """Make a node if it is to be made; whether it is done or has failed, so that it need not be tried again."""
        self._why.pop(node.key, None)
        if node.key in self.failures:
            return True
        if is_done(node, self.store):
            self._found(node)
            return True
        for key in node.needs:
            if not self._settle(self.nodes[key]):
                return False
            if key in self.failures:
                self._fail(node, self._lost(node, key))
                return True
        try:
            return self._make(node)
        except OSError as error:  # a full disk above all
            self._fail(node, Failure(node=node.label, cause=explained(error, self.store.logs / f"{node.key}.log")))
            return True

    def _make(self, node: Node) -> bool:
        """Make a node whose needs are there, unless another run is making it."""
        with ExitStack() as stack:
            if (lease := stack.enter_context(self.store.leases.held(node.key))) is None:
                return False
            leases, tasks = [lease], {}
            for task, key in node.tasks.items():
                own = stack.enter_context(self.store.leases.held(key))
                if own is not None and not self.store.holds(key, RECORDS[node.kind]):
                    leases.append(own)
                    tasks[task] = key
            if is_done(node, self.store):
                return False  # by another run, before this one held the leases
            # Before the parents are read: that would disturb a measurement, too.
            if not stack.enter_context(machine_share(alone=node.kind in ("machine", "measure"))):
                self._why[node.key] = MEASURED if node.kind in ("machine", "measure") else MEASURES
                return False
            if not all(self._is_whole(self.nodes[key], node) for key in node.needs) or (node.tasks and not tasks):
                return node.key in self.failures
            self._work(node, leases, tasks)
        return node.key in self.failures or is_done(node, self.store)

    def _work(self, node: Node, leases: Sequence[Lease], tasks: Mapping[str, str]) -> None:
        listener = self.watcher.starting(node, estimate(node, self.plan).seconds)
        started = time.perf_counter()
        try:
            outcome = make(node, self.plan, self.store, listener, leases, tasks, self.trust_code)
            cause = outcome.cause if isinstance(outcome, Failed) else self._unusable(node, tasks)
        except Disturbed as disturbed:
            self._again[node.key] += 1
            if self._again[node.key] <= MADE_AGAIN:
                self.watcher.again(node, str(disturbed))
                return
            cause = f"it could not be kept {self._again[node.key]} times ({disturbed}); look at who else uses {self.store.root}"
        except OSError as error:
            cause = explained(error, self.store.logs / f"{node.key}.log")
        self.worked.add(node.key)
        if cause:
            self.failures[node.key] = Failure(node=node.label, cause=cause)
        self.watcher.ended(node, time.perf_counter() - started, cause)

    def _unusable(self, node: Node, tasks: Mapping[str, str]) -> str:
        """Why a result that has just been made cannot be used, which only a broken disk or file system explains; empty if it can."""
        problems = (self.store.problem(key, RECORDS[node.kind]) for key in tasks.values() or (node.key,))
        problem = next(filter(None, problems), "")
        return problem and f"its result could not be read back after it was written ({problem}); look at the disk of {self.store.root}"

    def _is_whole(self, node: Node, reader: Node) -> bool:
        """Whether a result that is about to be read is as it was written, by every byte. One that is not is removed, to be made again.

        With files that no run wrote, which a loader may read, the reader fails: they are somebody's, and the result is whole.
        """
        if self.store.problem(node.key, RECORDS[node.kind], every_byte=True):
            with self.store.leases.held(node.key) as lease:
                # Another run may have made it again before this one held the lease.
                if lease is not None and (problem := self.store.problem(node.key, RECORDS[node.kind], every_byte=True)):
                    self._remove_damaged(node, problem)
            return False
        with suppress(DamagedDigests):
            if unwritten := self.store.unwritten(node.key):
                cause = (
                    f"{self.store.folder(node.key) / unwritten[0]} was not written by a run, and a loader may read it; move it elsewhere"
                )
                self._fail(reader, Failure(node=reader.label, cause=cause))
                return False
        return True

    def _remove_damaged(self, node: Node, problem: str) -> None:
        self._again[node.key] += 1
        if self._again[node.key] > MADE_AGAIN:
            cause = f"its result was damaged each of {self._again[node.key]} times ({problem}); look at the disk of {self.store.root}"
            self._fail(node, Failure(node=node.label, cause=cause))
            return
        self.watcher.again(node, f"its result in the store is damaged ({problem})")
        self.store.discard(node.key)

    def _why_waiting(self, node: Node) -> str:
        """Which run a node waits for."""
        missing = next((self.nodes[key] for key in node.needs if not is_done(self.nodes[key], self.store)), None)
        if missing is not None:
            return self._why_waiting(missing)
        holders = (self.store.leases.holder(key) for key in (node.key, *node.tasks.values()))
        return f"{next(filter(None, holders), 'another run')} is making {node.label!r}"

    def _found(self, node: Node) -> None:
        """Note that a node is done. It is told if another run has made it, and how far it had come is not needed any more."""
        if self.store.checkpoints(node.key).exists():
            with self.store.leases.held(node.key) as lease:
                if lease is not None and is_done(node, self.store):
                    shutil.rmtree(self.store.checkpoints(node.key), ignore_errors=True)
        if node.key in self._awaited - self.worked:
            self._awaited.discard(node.key)
            self.watcher.found(node)

    def _fail(self, node: Node, failure: Failure) -> None:
        self.failures[node.key] = failure
        self.worked.add(node.key)
        self.watcher.lost(node, failure.cause)

    def _lost(self, node: Node, failed: str) -> Failure:
        """Why a node cannot run: the failure at the start of the row that ends in what it needs."""
        root = self.failures[failed].because or failed
        return Failure(node=node.label, cause=f"not run, because “{self.failures[root].node}” failed", because=root)
