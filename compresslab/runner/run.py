"""Run the nodes of a plan that the store lacks. Several runs may share a store: each result is made by one of them."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never

from compresslab.errors import BadInput, RunFailed
from compresslab.plan.estimate import devices_taken, estimate
from compresslab.plan.graph import Node, Plan
from compresslab.records import Failure
from compresslab.runner.attempt import Again, Held, Made, Outcome, Removed, Unmade
from compresslab.runner.executors.executor import Begun, Broken, Event, Executor, Moved, Over, Pending, Starting
from compresslab.runner.executors.local import LocalExecutor
from compresslab.runner.messages import Failed
from compresslab.runner.processes import Listener
from compresslab.runner.schedule import Start, Work, allows, in_order, schedule
from compresslab.runner.status.run_state import StateFile, forget
from compresslab.runner.watcher import Watcher
from compresslab.store.done import is_done, to_do
from compresslab.store.leases import POLL
from compresslab.store.store import Store

# How often a node is made again because its result is damaged or may not be kept, or because its process or its host was lost: a disk that
# damages it each time is not to be trusted, nor is a node that takes its process with it.
MADE_AGAIN = 2
LONGEST_PAUSE = 2.0  # seconds between two looks at what other runs have made
TO_ARRIVE = 60.0  # seconds after which a file that another host has written must be seen; NFS may take half of it
# Seconds that a node of unknown size is taken to need, for the order alone.
UNKNOWN_SECONDS = 60.0


class RunResult(NamedTuple):
    """What running a plan came to: failures by node key, how many nodes this run did not make, and its seconds."""

    failures: dict[str, Failure]
    cached: int
    seconds: float


def run(plan: Plan, store: Store, watcher: Watcher, executor: Executor | None = None) -> RunResult:
    """Make every result that the store lacks. A node that fails takes those that need it with it, and nothing else.

    What another run is making is waited for. What a node reads is compared with its digests first, and made again if it is damaged.

    Args:
        executor: where nodes run. Default: on this machine, one an accelerator, or one on a processor.

    Raises:
        BadInput: no host could ever run one of the nodes.
        RunFailed: the disk has too little room for what is to be made.
        KeyboardInterrupt: with the store clean and everything finished kept.
    """
    began = time.perf_counter()
    store.sweep()
    forget(store, plan.recipe.study)
    todo = to_do(plan, store)
    check_disk(todo, plan, store)
    runner = _Runner(plan, store, watcher, todo, executor or LocalExecutor(plan, store))
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

    def __init__(self, plan: Plan, store: Store, watcher: Watcher, todo: Sequence[Node], executor: Executor) -> None:
        self.plan, self.store, self.watcher, self.executor = plan, store, watcher, executor
        self.nodes = {node.key: node for node in plan.nodes}
        self.failures: dict[str, Failure] = {}
        self.worked: set[str] = set()
        self._awaited = {node.key for node in todo}
        self._done: set[str] = set()
        self._again: Counter[str] = Counter()
        self._lost_times: Counter[str] = Counter()
        self._state = StateFile(plan, store)
        self._works: dict[str, Work] = {}
        self._order: list[str] = []
        self._running: dict[str, Start] = {}
        self._listeners: dict[str, Listener] = {}
        # Nodes that ran beside others, and nodes that are to have a host to themselves because memory ran out.
        self._beside: set[str] = set()
        self._alone: set[str] = set()
        # When a node that another run holds is tried again, with the pause before that.
        self._held: dict[str, tuple[float, float]] = {}
        self._why: dict[str, str] = {}

    def run(self) -> None:
        """Try the nodes until each is done or has failed. What is gathered is made when a step needs it."""
        wanted = [node for node in self.plan.nodes if node.kind != "gather"]
        if impossible := [why for node in self.plan.nodes if node.key in self._awaited and (why := self._impossible(node))]:
            raise BadInput("; ".join(impossible))
        try:
            # A result that is made again may be another one than before. What was made from that is then to be made again, too.
            while self._pending(wanted):
                self._until_settled(wanted)
        finally:
            self.executor.stop()
            self._running.clear()
            self._tell_state(ended=True)
        for node in wanted:
            self._found(node)

    def _pending(self, wanted: Iterable[Node]) -> bool:
        """Look again what the store holds; whether anything is to be made."""
        self._order = [work.key for work in in_order(self._work(node.key) for node in self.plan.nodes)]
        self._done = {node.key for node in self.plan.nodes if is_done(node, self.store)}
        return any(node.key not in self._done | self.failures.keys() for node in wanted)

    def _until_settled(self, wanted: Iterable[Node]) -> None:
        while open_ones := self._open(wanted):
            self._step([self._works[key] for key in self._order if key in open_ones])

    def _open(self, wanted: Iterable[Node]) -> set[str]:
        """Keys of the nodes that are to be made: those that are wanted, and what these need. Those of failed ones fail."""
        found: dict[str, bool] = {}  # by key, whether it can still be made

        def visit(key: str) -> bool:
            if key not in found:
                found[key] = True
                node = self.nodes[key]
                lost = [need for need in node.needs if need not in self._done and not visit(need)]
                if lost and key not in self.failures:
                    self._fail(node, self._lost(node, lost[0]))
                found[key] = key not in self.failures
            return found[key]

        for node in wanted:
            if node.key not in self._done:
                visit(node.key)
        return {key for key, makeable in found.items() if makeable}

    def _step(self, order: Sequence[Work]) -> None:
        """Start what can be started and hear what happens, until something else may be started."""
        self._tell_state()
        now = time.monotonic()
        waiting = [work for work in order if work.key not in self._running and self._held.get(work.key, (0.0,))[0] <= now]
        for key in [work.key for work in waiting if work.key in self._held]:
            self._look(self.nodes[key])
        waiting = [work for work in waiting if work.key not in self._done]
        for start in schedule(waiting, self._done, list(self._running.values()), self.executor.hosts()):
            self._running[start.work.key] = start
            self._note_neighbours(start.host)
            self.executor.start(self.nodes[start.work.key], start)
        if not self._running:
            if self._give_up_impossible(waiting):
                return
            if self._held:
                self._tell_waiting()
        deadline = time.monotonic() + self._patience()
        while (left := deadline - time.monotonic()) > 0 and (event := self.executor.event(left)) is not None:
            if self._hear(event):
                return

    def _give_up_impossible(self, waiting: Sequence[Work]) -> bool:
        """Let the nodes fail that no living host could run; whether there were any.

        Raises:
            RunFailed: no host lives.
        """
        if not self.executor.hosts():
            raise RunFailed("no host is left on which anything could run; run again to go on from here")
        ready = [self.nodes[work.key] for work in waiting if all(key in self._done for key in work.needs)]
        impossible = {node.key: why for node in ready if (why := self._impossible(node))}
        for key, why in impossible.items():
            self._fail(self.nodes[key], Failure(node=self.nodes[key].label, cause=why))
        return bool(impossible)

    def _patience(self) -> float:
        """Seconds until a held node is to be tried again; without one, until something happens, with a look at the hosts now and then."""
        # One whose time has come and that did not start waits for a free place, which an event makes.
        now = time.monotonic()
        return min([when - now for when, _ in self._held.values() if when > now], default=LONGEST_PAUSE)

    def _hear(self, event: Event) -> bool:
        """Note what happened; whether something else may be started now."""
        node = self.nodes[event.key]
        match event:
            case Starting():
                self._listeners[node.key] = self.watcher.starting(node, self._works[node.key].seconds if self._known(node) else None)
            case Begun(key, pid):
                self._listeners[key].started(pid)
            case Moved(key, progressed):
                self._listeners[key].progress(*progressed)
            case Pending(_, why):
                self.watcher.waiting(node, why)
            case Broken(_, error):
                raise error
            case Over(key, outcome):
                start = self._running.pop(key)
                self._settle(node, outcome, start)
                self._listeners.pop(key, None)
                return True
            case _:
                assert_never(event)
        return False

    def _settle(self, node: Node, outcome: Outcome, start: Start) -> None:
        """Note how an attempt has ended."""
        match outcome:
            case Made(seconds):
                if not self._arrives(node):
                    cause = f"it was made on {start.host} and is not in {self.store.root} here; look whether that is the same folder there"
                    self._give_up(node, cause, seconds)
                    return
                self._done.add(node.key)
                self.worked.add(node.key)
                self.watcher.ended(node, seconds, "")
            case Held(why):
                self._hold(node, why)
            case Again(why):
                failed = f"it could not be kept {MADE_AGAIN + 1} times ({why}); look at who else uses {self.store.root}"
                self._make_again(node, why, failed)
            case Removed(key, problem) if is_done(self.nodes[key], self.store):
                # Made again meanwhile, or not seen on that host alone.
                work = self._works[node.key]
                self._works[node.key] = work._replace(not_on=work.not_on | {start.host})
                why = f"{start.host} could not read what it needs ({problem})"
                self._make_again(node, why, f"{why}, {MADE_AGAIN + 1} times")
            case Removed(key, _) if key not in self._done:
                pass  # another node that reads it has told
            case Removed(key, problem):
                self._done.discard(key)
                failed = f"its result was damaged each of {MADE_AGAIN + 1} times ({problem}); look at the disk of {self.store.root}"
                self._make_again(self.nodes[key], f"its result in the store is damaged ({problem})", failed)
            case Unmade(failed, seconds):
                if not self._worth_another_try(node, failed, start):
                    self._give_up(node, failed.cause, seconds)
            case _:
                assert_never(outcome)
        if not isinstance(outcome, Held):
            self._held.pop(node.key, None)

    def _worth_another_try(self, node: Node, failed: Failed, start: Start) -> bool:
        """Whether a node that failed is made again: elsewhere if its process was lost, and alone if memory ran out beside others."""
        if failed.kind == "lost" and self._lost_times[node.key] < MADE_AGAIN:
            self._lost_times[node.key] += 1
            work = self._works[node.key]
            self._works[node.key] = work._replace(not_on=work.not_on | {start.host})
        elif failed.kind == "memory" and node.key in self._beside and node.key not in self._alone:
            self._alone.add(node.key)
            self._works[node.key] = self._works[node.key]._replace(alone=True)
        else:
            return False
        self.watcher.again(node, failed.cause)
        return True

    def _make_again(self, node: Node, why: str, failed: str) -> None:
        self._again[node.key] += 1
        if self._again[node.key] <= MADE_AGAIN:
            self.watcher.again(node, why)
        else:
            self._give_up(node, failed, 0.0)

    def _give_up(self, node: Node, cause: str, seconds: float) -> None:
        failure = Failure(node=node.label, cause=cause)
        if node.key not in self._listeners:  # its worker never started
            self._fail(node, failure)
            return
        self.failures[node.key] = failure
        self.worked.add(node.key)
        self.watcher.ended(node, seconds, cause)

    def _arrives(self, node: Node) -> bool:
        """Whether a result that was made is in the store. What another host has written may take some seconds to be seen."""
        deadline = time.monotonic() + TO_ARRIVE
        while not (there := is_done(node, self.store)) and time.monotonic() < deadline:
            time.sleep(POLL)
        return there

    def _hold(self, node: Node, why: str) -> None:
        """Leave a node to another run for a while, a longer one each time."""
        self._look(node)
        if node.key in self._done:
            return
        pause = min(self._held[node.key][1] * 1.5, LONGEST_PAUSE) if node.key in self._held else POLL
        self._held[node.key] = (time.monotonic() + pause, pause)
        self._why[node.key] = why

    def _look(self, node: Node) -> None:
        """Look whether another run has made a node."""
        if is_done(node, self.store):
            self._done.add(node.key)
            self._held.pop(node.key, None)
            self._found(node)

    def _note_neighbours(self, host: str) -> None:
        together = [key for key, start in self._running.items() if start.host == host]
        if len(together) > 1:
            self._beside.update(together)

    def _work(self, key: str) -> Work:
        """A node as the scheduler sees it."""
        if key not in self._works:
            node = self.nodes[key]
            expected = estimate(node, self.plan)
            seconds = UNKNOWN_SECONDS if expected.seconds is None else expected.seconds
            self._works[key] = Work(key, node.needs, seconds, expected.memory or 0.0, devices_taken(node, self.plan), timed=node.timed)
        return self._works[key]

    def _impossible(self, node: Node) -> str:
        """Why no host could ever run a node; empty if one can."""
        work, hosts = self._work(node.key), self.executor.hosts()
        if any(allows(host, work) for host in hosts):
            return ""
        if work.timed:
            return (
                f"“{node.label}” measures times of {self.plan.machine}, and no host here is one; plan the study for these hosts, or take "
                "--set density.measure=false and no this-machine"
            )
        most = max((len(host.devices) for host in hosts), default=0)
        return f"“{node.label}” needs {work.devices} accelerators on one host, and the host with the most has {most}; give it fewer devices"

    def _known(self, node: Node) -> bool:
        return estimate(node, self.plan).seconds is not None

    def _tell_state(self, *, ended: bool = False) -> None:
        """Write how the run stands, for `compresslab status`."""
        held = {key: self._why.get(key) or "another run, which makes it" for key in self._held}
        self._state.write(self._done, self._running.keys(), self.failures, held, ended=ended)

    def _tell_waiting(self) -> None:
        key = next(iter(self._held))
        self.watcher.waiting(self.nodes[key], self._why.get(key) or self._why_waiting(self.nodes[key]))

    def _why_waiting(self, node: Node) -> str:
        """Which run a node waits for."""
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
