"""Runs nodes on this machine, several at once: one worker process a node, each waited for by a thread."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from compresslab.errors import BadInput
from compresslab.machine import control_groups
from compresslab.machine.processor import threads as processors
from compresslab.models.progress import Amount
from compresslab.plan.graph import Node, Plan
from compresslab.records.compute import Backend
from compresslab.runner.attempt import attempt
from compresslab.runner.executors.executor import Begun, Broken, Event, Moved, Over, Starting
from compresslab.runner.messages import Progressed, Share
from compresslab.runner.processes import Listener, Stop
from compresslab.runner.schedule import Host, Start
from compresslab.runner.server import TO_SAVE
from compresslab.runner.server_process import TO_DIE
from compresslab.store.store import Store

# The variable that shows a process some of the accelerators, by backend.
VISIBLE: dict[Backend, str] = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}


def jobs_on(device: str | None, jobs: int | None) -> int | None:
    """The number of jobs where a device was named, by torch's name.

    Raises:
        BadInput: one device with a number, and several jobs.
    """
    if device is None or ":" not in device:
        return 1 if device not in (None, "cpu") and jobs is None else jobs
    if jobs not in (None, 1):
        raise BadInput(f"--jobs {jobs}: --device {device} names one device, which one node has to itself; leave out one of the two")
    return 1


class LocalExecutor:
    """This machine.

    Args:
        jobs: nodes at once. Default: one an accelerator that the plan computes on, one on a processor.
        threads: of the processor, a node. Default: all that there are, divided by the jobs. Sums of many numbers are rounded otherwise
            with another number of threads, so results are equal byte for byte only with equal numbers.

    Raises:
        BadInput: more jobs than accelerators, or a number below 1.
    """

    def __init__(self, plan: Plan, store: Store, jobs: int | None = None, threads: int | None = None) -> None:
        for name, number in (("jobs", jobs), ("threads", threads)):
            if number is not None and number < 1:
                raise BadInput(f"--{name} {number}: give a number of at least 1")
        self.plan, self.store = plan, store
        devices = _devices(plan)
        self.jobs = jobs or max(1, len(devices))
        if devices and self.jobs > len(devices):
            raise BadInput(
                f"--jobs {jobs}: this machine has {len(devices)} accelerator{'s' * (len(devices) > 1)} for them, and a node has one to "
                f"itself; give at most --jobs {len(devices)}, or --device cpu"
            )
        self.threads = threads or max(1, processors() // self.jobs)
        several = self.jobs > 1 or any(node.devices > 1 for node in plan.nodes)
        self.devices = devices if several else ()
        self.name = socket.gethostname()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._stop = Stop()
        self._running: list[threading.Thread] = []

    def hosts(self) -> Sequence[Host]:
        """This machine alone."""
        return [Host(self.name, self.jobs, self.devices, control_groups.memory(), self.threads * self.jobs)]

    def start(self, node: Node, start: Start) -> None:
        """Start an attempt in a thread."""
        # Times are those of the whole machine, whatever else runs at other times.
        threads = processors() if node.timed else self.threads
        share = Share(threads, visible(start.devices, self.plan.compute.backend), start.devices)
        # A command that must end at once does not wait for its threads.
        thread = threading.Thread(target=self._attempt, args=(node, share), daemon=True, name=node.label)
        self._running = [other for other in self._running if other.is_alive()] + [thread]
        thread.start()

    def event(self, seconds: float) -> Event | None:
        """The next event."""
        try:
            return self._events.get(timeout=seconds)
        except Empty:
            return None

    def stop(self) -> None:
        """Interrupt the workers. They have the time to write checkpoints."""
        self._stop.ask()
        deadline = time.monotonic() + TO_SAVE + 2 * TO_DIE
        for thread in self._running:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _attempt(self, node: Node, share: Share) -> None:
        try:
            self._events.put(Over(node.key, attempt(node, self.plan, self.store, share, lambda: self._listener(node), self._stop)))
        except KeyboardInterrupt:
            return
        except BaseException as error:  # a fault of ours: the run ends with it
            self._events.put(Broken(node.key, error))

    def _listener(self, node: Node) -> Listener:
        self._stop.check()
        self._events.put(Starting(node.key))
        return _Teller(node.key, self._events)


class _Teller(Listener):
    """Passes on what it hears."""

    def __init__(self, key: str, events: SimpleQueue[Event]) -> None:
        self.key, self.events = key, events

    def started(self, pid: int) -> None:
        self.events.put(Begun(self.key, pid))

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        self.events.put(Moved(self.key, Progressed(share, text, amount)))


def visible(devices: Sequence[str], backend: Backend) -> dict[str, str]:
    """The environment that shows a process these devices alone, by torch's names; it then calls the first of them number 0."""
    if not devices or backend not in VISIBLE:
        return {}
    name = VISIBLE[backend]
    numbers = [device.partition(":")[2] or "0" for device in devices]
    # What this process sees may be a part of the machine's, under other numbers.
    seen = os.environ.get(name, "").split(",")
    return {name: ",".join(seen[int(number)] if any(seen) else number for number in numbers)}


def _devices(plan: Plan) -> tuple[str, ...]:
    """The accelerators of the plan's kind on this machine; none if it computes on the processor, or on one that was named."""
    kind, _, number = plan.compute.device.partition(":")
    if plan.probe is None or not plan.probe.count or kind in ("cpu", "mps"):
        return ()
    return tuple(f"{kind}:{device}" for device in range(plan.probe.count)) if number in ("", "0") else (plan.compute.device,)
