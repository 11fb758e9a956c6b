"""What a run has done, does and waits for, in a file of the store that its command keeps up to date (`compresslab status`)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from compresslab.files import atomic_write, make_folder
from compresslab.inputs import LARGEST_RECORD, read_json
from compresslab.plan.graph import Plan
from compresslab.records import Failure
from compresslab.store.store import Store

EVERY = 2.0  # seconds between two writes
SILENCE = 60.0  # seconds without a write after which the command is taken to be gone

State = Literal["done", "running", "waiting", "failed", "lost"]


class NodeState(NamedTuple):
    """How a node of a run stands.

    Attributes:
        state: "lost" of a node that is not run, because one that it needs failed.
        why: of a node that waits, what it waits for; of one that failed, the cause.
    """

    key: str
    label: str
    state: State
    why: str = ""


class RunState(NamedTuple):
    """How a run stands.

    Attributes:
        host, process: of the command. started, updated: seconds since the epoch. ended: whether the command has run all that it could.
    """

    study: str
    host: str
    process: int
    started: float
    updated: float
    ended: bool
    nodes: tuple[NodeState, ...]

    @property
    def silent(self) -> bool:
        """Whether the command is taken to be gone without having ended."""
        return not self.ended and time.time() - self.updated > SILENCE


STATE = TypeAdapter(RunState)


class StateFile:
    """The file of one run. A disk that does not take it fails nothing."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._study, self._nodes = plan.recipe.study, {node.key: node for node in plan.nodes}
        self._file = _folder(store) / f"{plan.recipe.study}-{socket.gethostname()}-{os.getpid()}.json"
        self._started, self._written = time.time(), 0.0

    def write(
        self,
        done: Collection[str],
        running: Collection[str],
        failures: Mapping[str, Failure],
        held: Mapping[str, str],
        *,
        ended: bool = False,
    ) -> None:
        """Write how the run stands, if that was not done a moment ago.

        Args:
            held: of nodes that another run makes, which run that is.
        """
        if not ended and time.monotonic() - self._written < EVERY:
            return
        self._written = time.monotonic()
        nodes = [self._state(key, done, running, failures, held) for key in self._nodes]
        state = RunState(self._study, socket.gethostname(), os.getpid(), self._started, time.time(), ended, tuple(nodes))
        with contextlib.suppress(OSError):
            make_folder(self._file.parent)
            atomic_write(self._file, json.dumps(state._asdict()))

    def _state(
        self, key: str, done: Collection[str], running: Collection[str], failures: Mapping[str, Failure], held: Mapping[str, str]
    ) -> NodeState:
        node = self._nodes[key]
        if key in failures:
            failure = failures[key]
            return NodeState(key, node.label, "lost" if failure.because else "failed", failure.cause)
        if key in done:
            return NodeState(key, node.label, "done")
        if key in running:
            return NodeState(key, node.label, "running")
        if key in held:
            return NodeState(key, node.label, "waiting", held[key])
        missing = [self._nodes[need].label for need in node.needs if need not in done]
        return NodeState(key, node.label, "waiting", ", ".join(missing) or "a free place")


def run_states(store: Store, study: str | None = None) -> Iterator[RunState]:
    """The runs that the store knows of, the latest of each study's commands last. Files that cannot be read are passed over."""
    states = [state for _, state in _read(store) if study in (None, state.study)]
    yield from sorted(states, key=lambda state: state.updated)


def _read(store: Store) -> Iterator[tuple[Path, RunState]]:
    for file in _folder(store).glob("*.json"):
        with contextlib.suppress(OSError, ValidationError, ValueError):
            yield file, STATE.validate_json(json.dumps(read_json(file, LARGEST_RECORD)), strict=True)


def forget(store: Store, study: str) -> None:
    """Remove what is known of the runs of a study that have ended or are silent."""
    for file, state in list(_read(store)):
        if state.study == study and (state.ended or state.silent):
            file.unlink(missing_ok=True)


def _folder(store: Store) -> Path:
    return store.root / "runs"
