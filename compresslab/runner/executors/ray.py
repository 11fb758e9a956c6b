"""Runs nodes on the hosts of a Ray cluster: one Ray task a node, placed by the schedule, with the processors and accelerators that it has.

Ray starts the tasks, gives them their accelerators and tells when a host is lost. Which node runs where, and whether a lost one is tried
again, is decided as on one machine. Progress comes through the store (`runner.status.running`), which all hosts see.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput, RunFailed
from compresslab.plan.graph import Node, Plan
from compresslab.runner.attempt import Made, Unmade
from compresslab.runner.executors import host_tasks
from compresslab.runner.executors.cluster import Cluster, ClusterHost, alive, on
from compresslab.runner.executors.executor import Begun, Broken, Event, Moved, Over, Pending, Starting
from compresslab.runner.messages import Failed, Progressed
from compresslab.runner.schedule import Host, Start
from compresslab.runner.server import TO_SAVE
from compresslab.runner.server_process import TO_DIE
from compresslab.runner.status.running import running_node
from compresslab.store.store import Store

LOOK_EVERY = 0.5  # seconds between two looks at the progress of what runs
PATIENCE = 20.0  # seconds after which it is told that a node has not started
HEAD_SILENCE = 20.0  # seconds; Ray itself ends the process after 60
HOSTS_EVERY = 2.0  # seconds between two looks at which hosts live


class _Asked(NamedTuple):
    """A node that Ray was asked for: what tells this attempt from others, and since when, on a monotonic clock."""

    start: Start
    token: str
    since: float


class RayExecutor:
    """The hosts of a cluster.

    Args:
        jobs: nodes at once on each host. Default: one an accelerator, one on a host that computes on its processors.
        threads: of the processor, a node. Default: the host's, divided by its jobs.

    Raises:
        BadInput: no host of the cluster computes as the plan does.
    """

    def __init__(self, plan: Plan, store: Store, cluster: Cluster, jobs: int | None = None, threads: int | None = None) -> None:
        import ray

        self.plan, self.store, self.threads = plan, store, threads
        backend = plan.compute.backend
        self.cluster = [host for host in cluster.hosts if host.machine.probe.backend == backend]
        if not self.cluster:
            raise BadInput(f"the plan computes on {backend}, and no host of the cluster does; plan it for this cluster")
        self._hosts = {host.node: self._host(host, jobs) for host in self.cluster}
        self._names = {host.node: host.facts.name for host in self.cluster}
        self._ray: Any = ray
        self._task = ray.remote(host_tasks.try_node)
        self._plan = ray.put(plan)
        self._check_plan()
        self._asked: dict[Any, _Asked] = {}
        self._seen: dict[str, tuple[int, Progressed]] = {}
        self._events: deque[Event] = deque()
        self._pending: set[str] = set()
        self._head: str = ray.get_runtime_context().gcs_address
        self._head_silent_since = 0.0
        self._alive, self._looked = set(self._hosts), time.monotonic()

    def hosts(self) -> Sequence[Host]:
        """The hosts that live."""
        if time.monotonic() - self._looked > HOSTS_EVERY and not self._head_silent_since:
            self._alive, self._looked = set(alive()), time.monotonic()
        return [host for node, host in self._hosts.items() if node in self._alive]

    def start(self, node: Node, start: Start) -> None:
        """Ask Ray for the task of a node."""
        host = self._hosts[start.host]
        # Times are those of the whole machine, whatever else runs at other times.
        threads = host.threads if node.timed else self.threads or max(1, host.threads // host.slots)
        resources = {
            "num_cpus": min(threads, host.threads),
            "num_gpus": len(start.devices),
            "memory": int(min(start.work.memory, host.memory)) if host.memory < float("inf") else None,
        }
        given = {name: amount for name, amount in resources.items() if amount}
        task = self._task.options(**on(start.host, **given), name=node.label)
        token = secrets.token_hex(8)
        reference = task.remote(self._plan, node.key, self.store.root.absolute(), threads, Path.cwd(), token)
        self._asked[reference] = _Asked(start, token, time.monotonic())

    def event(self, seconds: float) -> Event | None:
        """The next event."""
        deadline = time.monotonic() + seconds
        while not self._events:
            patience = max(0.0, min(LOOK_EVERY, deadline - time.monotonic()))
            ended = []
            if self._asked:
                ended, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=patience)
            else:
                time.sleep(patience)
            for reference in ended:
                self._end(reference)
            if not ended:
                self._look()
                if time.monotonic() >= deadline:
                    break
        return self._events.popleft() if self._events else None

    def stop(self) -> None:
        """Cancel the tasks. Their workers have the time to write checkpoints."""
        if self._head_silent_since:  # nobody is left to ask
            return
        for reference in self._asked:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing left to cancel
                self._ray.cancel(reference)
        with contextlib.suppress(Exception):
            if self._asked:
                self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=TO_SAVE + 2 * TO_DIE)

    def _check_plan(self) -> None:
        """Let every host plan the study: it must come to the same keys.

        Raises:
            BadInput: naming the hosts on which a model, a text, a package or code is another one.
        """
        task = self._ray.remote(host_tasks.other_nodes)
        asked = {host.node: task.options(**on(host.node, num_cpus=0)).remote(self._plan, Path.cwd()) for host in self.cluster}
        troubles = []
        for node, reference in asked.items():
            try:
                if labels := self._ray.get(reference):
                    named = ", ".join(f"“{label}”" for label in labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
                    troubles.append(f"host {self._names[node]} makes another result of {named}: a model, text or package differs there")
            except self._ray.exceptions.RayTaskError as error:
                troubles.append(f"host {self._names[node]} cannot plan the study: {error.cause}")
            except self._ray.exceptions.RayError:
                continue  # it may be gone, which the next look at the hosts tells
        if troubles:
            raise BadInput("the cluster cannot be used:\n" + "\n".join(f"  {trouble}" for trouble in troubles))

    def _look_at_head(self) -> None:
        """Look whether the head of the cluster answers: Ray ends the whole process, without a word of ours, if it does not for a minute.

        Raises:
            RunFailed: it has not answered for `HEAD_SILENCE`.
        """
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host, int(port)), HOSTS_EVERY).close()
            self._head_silent_since = 0.0
        except OSError as error:
            self._head_silent_since = self._head_silent_since or time.monotonic()
            if time.monotonic() - self._head_silent_since > HEAD_SILENCE:
                raise RunFailed(
                    f"the head of the cluster at {self._head} does not answer any more ({error.strerror or error}); start it again and run "
                    "again to go on from here"
                ) from error

    def _host(self, host: ClusterHost, jobs: int | None) -> Host:
        count = host.usable_accelerators
        most = count or host.processors
        if jobs is not None and not 1 <= jobs <= most:
            what = "accelerators" if count else "processors"
            raise BadInput(f"--jobs {jobs}: host {host.facts.name} has {most} {what} for them; give 1 to {most}")
        # Ray numbers the accelerators that it gives; here only their count is decided.
        devices = tuple(f"accelerator {number}" for number in range(count))
        timed = host.machine.facts == self.plan.machine_facts
        return Host(host.node, jobs or count or 1, devices, host.memory, host.processors, timed)

    def _end(self, reference: Any) -> None:
        """Note how a task has ended: with an outcome, or with what Ray says of its loss."""
        start = self._asked.pop(reference).start
        key, errors = start.work.key, self._ray.exceptions
        host = self._names[start.host]
        try:
            outcome = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            outcome = Unmade(
                Failed(f"Ray's memory monitor killed it, because the memory of host {host} ran out: {_first(error)}", "memory"), 0.0
            )
        except errors.RayTaskError as error:
            self._events.append(Broken(key, error.cause if isinstance(error.cause, BaseException) else error))
            return
        except (errors.RaySystemError, ConnectionError) as error:
            self._events.append(
                Broken(key, RunFailed(f"the connection to the cluster was lost ({_first(error)}); run again to go on from here"))
            )
            return
        except errors.RayError as error:
            self._looked = 0.0  # the host may be gone
            outcome = Unmade(Failed(f"its task on host {host} was lost: {_first(error)}. Run again to go on from here", "lost"), 0.0)
        if key not in self._seen and isinstance(outcome, Made | Unmade):
            self._events.append(Starting(key))
        self._seen.pop(key, None)
        self._pending.discard(key)
        self._events.append(Over(key, outcome))

    def _look(self) -> None:
        """See how far the nodes have come."""
        self._look_at_head()
        for asked in self._asked.values():
            key = asked.start.work.key
            node = running_node(self.store, key)
            if node is None or node.asked != asked.token:  # another run may make the same node
                if key not in self._pending and time.monotonic() - asked.since > PATIENCE:
                    self._pending.add(key)
                    why = "Ray has not started it: other work may hold the processors, accelerators or memory of the cluster (`ray status`)"
                    self._events.append(Pending(key, why))
                continue
            self._pending.discard(key)
            pid, before = self._seen.get(key, (-1, None))
            if before is None:
                self._events.append(Starting(key))
            if node.process and pid != node.process:
                self._events.append(Begun(key, node.process))
            if before != node.progressed:
                self._events.append(Moved(key, node.progressed))
            self._seen[key] = (node.process, node.progressed)


def _first(error: BaseException) -> str:
    """The first line of what Ray says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
