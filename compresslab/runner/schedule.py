"""Which node starts where: a pure function of what waits, what is done, what runs, and what the hosts have.

The order is that of list scheduling by the longest remaining path (Graham 1969; the HLF rule of Hu 1961): of the nodes that could start,
the one with the longest chain of work behind it starts first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """A node as the scheduler sees it.

    Attributes:
        needs: keys of the nodes that must be done before. seconds: its estimated time. memory: its estimated peak, in bytes.
        devices: the accelerators that it takes, where a host has any.
        timed: whether it measures times, with nothing beside it and on a host of the right kind alone. alone: whether it is to run with
            nothing beside it because memory ran out.
        not_on: hosts that have lost it and are not to get it again while there are others.
    """

    key: str
    needs: tuple[str, ...] = ()
    seconds: float = 1.0
    memory: float = 0.0
    devices: int = 1
    timed: bool = False
    alone: bool = False
    not_on: frozenset[str] = frozenset()

    @property
    def by_itself(self) -> bool:
        """Whether nothing may run beside it."""
        return self.timed or self.alone


class Host(NamedTuple):
    """Where nodes may run.

    Attributes:
        slots: how many nodes it runs at once. devices: its accelerators; without any, nodes run on its processors.
        memory: what nodes may use together, in bytes. threads: of its processors, for all slots together.
        timed: whether it may run the nodes that measure times: they are those of one kind of machine.
    """

    name: str
    slots: int = 1
    devices: tuple[str, ...] = ()
    memory: float = float("inf")
    threads: int = 1
    timed: bool = True


class Start(NamedTuple):
    """A node that runs or is to be started, with the devices that it has to itself."""

    work: Work
    host: str
    devices: tuple[str, ...] = ()


def in_order(works: Iterable[Work]) -> list[Work]:
    """Nodes by the seconds of the longest path that begins with each, the longest first; those that measure times come last."""
    nodes = {work.key: work for work in works}
    readers: dict[str, list[str]] = {key: [] for key in nodes}
    for work in nodes.values():
        for key in work.needs:
            if key in readers:
                readers[key].append(work.key)
    paths: dict[str, float] = {}
    for key in reversed(_from_first_to_last(nodes)):
        paths[key] = nodes[key].seconds + max((paths[reader] for reader in readers[key]), default=0.0)
    return sorted(nodes.values(), key=lambda work: (work.timed, -paths[work.key]))


def schedule(waiting: Sequence[Work], done: Collection[str], running: Sequence[Start], hosts: Sequence[Host]) -> list[Start]:
    """What to start now, and where.

    A node that could start but for the memory or the devices that it needs keeps them free on one host, so that smaller ones do not pass it
    for ever. A node that needs more memory than its host has is started when nothing else runs there.

    Args:
        waiting: the nodes that neither run nor are done, in the order of `in_order`. done: keys of all that are done.
    """
    rooms = {host.name: _Room(host) for host in hosts}
    for start in running:
        if start.host in rooms:
            rooms[start.host].take(start.work, start.devices)
    starts = []
    open_rooms = [room for room in rooms.values() if room.open]
    idle = any(room.used == 0 for room in open_rooms)
    for work in waiting:
        if not open_rooms:
            break
        if (work.by_itself and not idle) or not all(key in done for key in work.needs):
            continue
        fitting = [room for room in open_rooms if allows(room.host, work)]
        if work.not_on and any(name not in work.not_on and allows(room.host, work) for name, room in rooms.items()):
            fitting = [room for room in fitting if room.host.name not in work.not_on]
        if ready := [room for room in fitting if room.fits(work)]:
            # The fullest one, so that others stay free for what needs a host to itself.
            room = max(ready, key=lambda room: room.used)
            starts.append(Start(work, room.host.name, room.take(work)))
        elif fitting and not work.by_itself:
            max(fitting, key=lambda room: room.free_memory).take(work)
        else:
            continue
        open_rooms = [room for room in open_rooms if room.open]
        idle = any(room.used == 0 for room in open_rooms)
    return starts


def allows(host: Host, work: Work) -> bool:
    """Whether a host could ever run a node."""
    return (host.timed or not work.timed) and (not host.devices or len(host.devices) >= work.devices)


class _Room:
    """What is left of a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.used, self.closed = 0, False
        self.free_memory, self.free_devices = host.memory, list(host.devices)

    @property
    def open(self) -> bool:
        """Whether anything at all could start."""
        return not self.closed and self.used < self.host.slots and (not self.host.devices or bool(self.free_devices))

    def fits(self, work: Work) -> bool:
        """Whether a node can start now."""
        if not self.open or (self.host.devices and len(self.free_devices) < work.devices):
            return False
        return self.used == 0 or (not work.by_itself and work.memory <= self.free_memory)

    def take(self, work: Work, devices: Sequence[str] = ()) -> tuple[str, ...]:
        """Count a node in; gives its devices."""
        taken = tuple(devices) or tuple(self.free_devices[: work.devices])
        self.free_devices = [device for device in self.free_devices if device not in taken]
        self.used += 1
        self.free_memory -= work.memory
        self.closed = self.closed or work.by_itself
        return taken


def _from_first_to_last(nodes: Mapping[str, Work]) -> list[str]:
    """Keys in an order in which each comes after those that it needs."""
    order: list[str] = []
    seen: set[str] = set()
    for first in nodes:
        stack = [(first, False)]
        while stack:
            key, complete = stack.pop()
            if complete:
                order.append(key)
            elif key in nodes and key not in seen:
                seen.add(key)
                stack.append((key, True))
                stack.extend((need, False) for need in nodes[key].needs)
    return order
