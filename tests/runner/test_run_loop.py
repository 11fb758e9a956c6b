"""The loop of a run, with an executor that does as the test says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from compresslab.errors import RunFailed
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.schema import Recipe
from compresslab.runner import run as running
from compresslab.runner.attempt import Again, Held, Made, Unmade
from compresslab.runner.executors.executor import Event, Moved, Over, Starting
from compresslab.runner.messages import Failed, Progressed
from compresslab.runner.run import MADE_AGAIN, run
from compresslab.runner.schedule import Host, Start
from compresslab.runner.status.run_state import StateFile
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

NODES = (Node("model", "base", "b"), Node("model", "a", "a", ("b",)), Node("measure", "a", "t", ("a",)))


class Script:
    """An executor: the events that come after each start, and the hosts."""

    def __init__(self, *hosts: Host) -> None:
        self.living, self.started = list(hosts or [Host("h")]), list[tuple[str, str]]()
        self.done: set[str] = set()
        self._events: Iterator[Event] = iter(())

    def hosts(self) -> Sequence[Host]:
        return self.living

    def start(self, node: Node, start: Start) -> None:
        self.started.append((node.key, start.host))
        self._events = self.act(node.key, start.host)

    def act(self, key: str, host: str) -> Iterator[Event]:
        """What happens to a node that has started."""
        yield Starting(key)
        self.done.add(key)
        yield Over(key, Made(0.0))

    def event(self, seconds: float) -> Event | None:
        event = next(self._events, None)
        if event is None:
            time.sleep(seconds)
        return event

    def stop(self) -> None:
        pass


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(running, "estimate", lambda *_: SimpleNamespace(seconds=None, memory=None, disk=0))
    return Plan(cast(Recipe, SimpleNamespace(study="s")), NODES, (), machine="this one")


def ran(plan: Plan, script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher | None = None) -> dict[str, str]:
    """The causes of what failed, by key."""
    monkeypatch.setattr(running, "is_done", lambda node, _: node.key in script.done)
    return {key: failure.cause for key, failure in run(plan, Store(folder), watcher or Watcher(), script).failures.items()}


def test_how_a_run_stands_is_told_while_progress_streams_in(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LONGEST_PAUSE", 0.05)
    told = []
    monkeypatch.setattr(StateFile, "write", lambda *_, **__: told.append(1))

    class Streams(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            yield Starting(key)
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                yield Moved(key, Progressed(0.5, "x"))
            self.done.add(key)
            yield Over(key, Made(0.0))

    assert not ran(plan, Streams(), tmp_path, monkeypatch)
    assert len(told) >= 3 * 5


def test_a_node_that_another_run_holds_is_asked_for_ever_less_often(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class HeldAtFirst(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            if key == "b" and len(self.started) < 5:
                yield Over(key, Held("somebody makes it"))
            else:
                yield from super().act(key, host)

    script = HeldAtFirst()
    began = time.monotonic()
    assert not ran(plan, script, tmp_path, monkeypatch)
    assert time.monotonic() - began >= 0.2 * (1 + 1.5 + 2.25 + 3.375) * 0.99
    assert [key for key, _ in script.started] == ["b"] * 5 + ["a", "t"]


def test_a_lost_node_is_tried_on_another_host_and_not_for_ever(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loses(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            yield Starting(key)
            yield Over(key, Unmade(Failed("its host went", "lost"), 0.0))

    script = Loses(Host("h"), Host("i"))
    assert ran(plan, script, tmp_path, monkeypatch)["b"] == "its host went"
    assert len(script.started) == MADE_AGAIN + 1
    assert {host for _, host in script.started[:2]} == {"h", "i"}


def test_what_no_living_host_can_run_fails_and_the_rest_is_done(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LosesTheTimedOne(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            self.living = [host for host in self.living if not host.timed]
            yield from super().act(key, host)

    failures = ran(plan, LosesTheTimedOne(Host("h"), Host("i", timed=False)), tmp_path, monkeypatch)
    assert list(failures) == ["t"]
    assert "measures times of this one, and no host here is one" in failures["t"]


def test_a_run_without_any_host_ends(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LosesAll(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            self.living = []
            yield from super().act(key, host)

    with pytest.raises(RunFailed, match="no host is left"):
        ran(plan, LosesAll(), tmp_path, monkeypatch)


def test_a_result_that_can_never_be_kept_is_given_up_with_the_cause(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverKept(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            yield Starting(key)
            yield Over(key, Again("a file of {it} has changed"))

    script = NeverKept()
    assert "could not be kept 3 times (a file of {it} has changed)" in ran(plan, script, tmp_path, monkeypatch)["b"]
    assert len(script.started) == MADE_AGAIN + 1


def test_a_result_that_does_not_arrive_in_the_store_is_named(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TO_ARRIVE", 0.1)

    class Elsewhere(Script):
        def act(self, key: str, host: str) -> Iterator[Event]:
            yield Starting(key)
            yield Over(key, Made(0.0))

    script = Elsewhere()
    assert "it was made on h and is not in" in ran(plan, script, tmp_path, monkeypatch)["b"]
    assert len(script.started) == 1
