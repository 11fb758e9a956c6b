"""One attempt to make a node: by whoever holds its lease, where the schedule says, from inputs whose every byte is as written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from compresslab.plan.graph import Node, Plan
from compresslab.runner.endings import explained
from compresslab.runner.machine_share import machine_share
from compresslab.runner.make import Disturbed, make
from compresslab.runner.messages import Failed, Share
from compresslab.runner.processes import Listener, Stop
from compresslab.runner.status.running import begun
from compresslab.store.digests import DamagedDigests
from compresslab.store.done import RECORDS, is_done
from compresslab.store.leases import Lease
from compresslab.store.store import Store

MEASURED = "times are measured while nothing else computes on this machine, and another run does"
MEASURES = "another run measures times on this machine, which nothing may disturb"


class Made(NamedTuple):
    """The result is in the store; it took so many seconds."""

    seconds: float


class Unmade(NamedTuple):
    """It failed, after so many seconds."""

    failed: Failed
    seconds: float


class Held(NamedTuple):
    """It can't be made now, because another run makes it or computes on this machine; `why` says which, if it is known."""

    why: str = ""


class Removed(NamedTuple):
    """A result that it reads was damaged and is removed, or is not there: its key, and what was wrong."""

    key: str
    problem: str


class Again(NamedTuple):
    """Its result was not kept and is to be made again."""

    why: str


Outcome = Made | Unmade | Held | Removed | Again


def attempt(node: Node, plan: Plan, store: Store, share: Share, starting: Callable[[], Listener], stop: Stop | None = None) -> Outcome:
    """Try to make a node whose inputs the store holds.

    Args:
        share: what of this machine it may use. starting: called when its worker is about to start; what it gives back hears the progress.
        stop: what interrupts it.

    Raises:
        KeyboardInterrupt: it was interrupted; nothing of it is left but its checkpoints.
    """
    try:
        return _attempt(node, plan, store, share, starting, stop)
    except OSError as error:  # a full disk above all
        return Unmade(_explained(error, node, store), 0.0)


def _attempt(node: Node, plan: Plan, store: Store, share: Share, starting: Callable[[], Listener], stop: Stop | None) -> Outcome:
    with ExitStack() as stack:
        if (lease := stack.enter_context(store.leases.held(node.key))) is None:
            return Held()
        leases, tasks = [lease], {}
        for task, key in node.tasks.items():
            own = stack.enter_context(store.leases.held(key))
            if own is not None and not store.holds(key, RECORDS[node.kind]):
                leases.append(own)
                tasks[task] = key
        if is_done(node, store):
            return Held()  # by another run, before this one held the leases
        # Before the parents are read: that would disturb a measurement, too.
        if not stack.enter_context(machine_share(alone=node.timed)):
            return Held(MEASURED if node.timed else MEASURES)
        for key in node.needs:
            if (outcome := _unusable_input(plan.node(key), store)) is not None:
                return outcome
        if node.tasks and not tasks:
            return Held()
        return _make(node, plan, store, starting, leases, tasks, share, stop)


def _make(
    node: Node,
    plan: Plan,
    store: Store,
    starting: Callable[[], Listener],
    leases: Sequence[Lease],
    tasks: Mapping[str, str],
    share: Share,
    stop: Stop | None,
) -> Outcome:
    running = begun(store, node.key, node.label, plan.recipe.study, share, starting())
    started = time.perf_counter()
    try:
        outcome = make(node, plan, store, running, leases, tasks, share, stop)
        failed = outcome if isinstance(outcome, Failed) else _unreadable(node, store, tasks)
    except Disturbed as disturbed:
        return Again(str(disturbed))
    except OSError as error:
        failed = _explained(error, node, store)
    finally:
        running.remove()
    seconds = time.perf_counter() - started
    return Unmade(failed, seconds) if failed else Made(seconds)


def _explained(error: OSError, node: Node, store: Store) -> Failed:
    return Failed(explained(error, store.logs / f"{node.key}.log"))


def _unreadable(node: Node, store: Store, tasks: Mapping[str, str]) -> Failed | None:
    """Why a result that has just been made cannot be used, which only a broken disk or file system explains; `None` if it can."""
    problems = (store.problem(key, RECORDS[node.kind]) for key in tasks.values() or (node.key,))
    if problem := next(filter(None, problems), ""):
        return Failed(f"its result could not be read back after it was written ({problem}); look at the disk of {store.root}")
    return None


def _unusable_input(node: Node, store: Store) -> Outcome | None:
    """What becomes of the attempt if a result that is about to be read is not as it was written; `None` if it is, by every byte.

    A damaged one is removed, to be made again. With files that no run wrote, which a loader may read, the reader fails: they are
    somebody's, and the result is whole.
    """
    kind = RECORDS[node.kind]
    if not store.occupied(node.key):
        return Removed(node.key, f"the result of “{node.label}” is not in {store.root}")
    if store.problem(node.key, kind, every_byte=True):
        with store.leases.held(node.key) as lease:
            # Another run may have made it again before this one held the lease.
            if lease is not None and (problem := store.problem(node.key, kind, every_byte=True)):
                store.discard(node.key)
                return Removed(node.key, problem)
        return Held()
    with suppress(DamagedDigests):
        if unwritten := store.unwritten(node.key):
            file = store.folder(node.key) / unwritten[0]
            return Unmade(Failed(f"{file} was not written by a run, and a loader may read it; move it elsewhere"), 0.0)
    return None
