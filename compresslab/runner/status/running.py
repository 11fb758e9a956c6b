"""What runs at this moment, in small files of the store: every terminal and every host that sees the store can read them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.files import atomic_write, make_folder
from compresslab.inputs import read_json
from compresslab.models.progress import Amount
from compresslab.runner.messages import Progressed, Share
from compresslab.runner.processes import Listener
from compresslab.store.store import Store

EVERY = 1.0  # seconds between two writes of one node, at least
LONGEST = 10_000  # bytes of such a file


class RunningNode(NamedTuple):
    """A node that runs.

    Attributes:
        host: name of the machine. process: id of its worker there, 0 before it runs. devices: accelerators that it has, by torch's names.
        started, updated: seconds since the epoch, by the clock of the host. asked: `Share.asked` of the attempt.
    """

    key: str
    label: str
    study: str
    host: str
    process: int
    devices: tuple[str, ...]
    started: float
    updated: float
    asked: str
    progressed: Progressed


class RunningFile(Listener):
    """Keeps the file of one node up to date, and passes on to another listener what it hears. A disk that takes no file fails no node."""

    def __init__(self, store: Store, node: RunningNode, listener: Listener) -> None:
        self._file, self._node, self._listener = store.running / f"{node.key}.json", node, listener
        self._written = 0.0
        self._write(force=True)

    def started(self, pid: int) -> None:
        self._node = self._node._replace(process=pid)
        self._write(force=True)
        self._listener.started(pid)

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        self._node = self._node._replace(updated=time.time(), progressed=Progressed(share, text, amount))
        self._write(force=False)
        self._listener.progress(share, text, amount)

    def remove(self) -> None:
        """Remove the file, because the node does not run any more."""
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _write(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._written >= EVERY:
            self._written = now
            with contextlib.suppress(OSError):
                make_folder(self._file.parent)
                atomic_write(self._file, json.dumps(self._node._asdict()))


def begun(store: Store, key: str, label: str, study: str, share: Share, listener: Listener) -> RunningFile:
    """The file of a node whose worker is about to start on this host."""
    now = time.time()
    node = RunningNode(key, label, study, socket.gethostname(), 0, share.devices, now, now, share.asked, Progressed(0.0, "starting"))
    return RunningFile(store, node, listener)


def running_node(store: Store, key: str) -> RunningNode | None:
    """What is known of a node that runs; `None` if nothing is. Its host may have been lost since."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return _read(store.running / f"{key}.json")
    return None


def running_nodes(store: Store) -> Iterator[RunningNode]:
    """All nodes that run on any host. Files of nodes whose lease can be had are left out: whoever made them has ended."""
    for file in sorted(store.running.glob("*.json")):
        node = running_node(store, file.stem)
        if node is None:
            continue
        ended = False
        with contextlib.suppress(OSError), store.leases.held(node.key) as lease:  # a store that may not be written into shows all
            ended = lease is not None
        if not ended:
            yield node


def _read(file: Path) -> RunningNode:
    """Raises ValueError or TypeError if the file is not one that `RunningFile` wrote."""
    read: dict[str, Any] = read_json(file, LONGEST)
    share, text, amount = read.pop("progressed")
    node = RunningNode(**{**read, "devices": tuple(read["devices"])}, progressed=Progressed(share, text, amount and Amount(*amount)))
    texts, numbers = (node.label, node.study, node.host, node.asked, text), (node.process, node.started, node.updated, share)
    well = all(isinstance(value, str) for value in (*texts, *node.devices)) and all(isinstance(value, int | float) for value in numbers)
    if node.key != file.stem or not well:
        raise ValueError
    return node
