"""Mutated inputs end in one message: a part of what `python tests/faults/mutations.py` tries, and all that it found before."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from faults import mutations


@pytest.fixture(scope="module")
def world() -> Iterator[mutations.World]:
    with mutations.world() as targets:
        yield targets


def failures(cases: Iterator[mutations.Case]) -> list[str]:
    # Memory is that of the script: here, libraries of other tests are loaded.
    failed = [case for case in cases if case.ended.failure not in ("", "memory")]
    return [f"{case.target} {case.content!r:.200} {case.command}: {case.ended.failure}: {case.ended.said[-500:]}" for case in failed]


def test_mutated_files_end_in_one_message(world: mutations.World):
    assert failures(mutations.cases(world, 100, 14)) == []


@pytest.mark.slow
def test_what_was_found_before_stays_mended(world: mutations.World):
    assert failures(mutations.corpus(world)) == []


@pytest.mark.slow
def test_mutated_models_load_or_end_in_one_line():
    with mutations.world(loaders=True) as world:
        loads = world._replace(targets={name: target for name, target in world.targets.items() if target.loads})
        assert failures(mutations.cases(loads, 44, 14)) == []


@pytest.mark.parametrize(
    ("ended", "failure"),
    [
        (mutations.Ended(2, "error: x", 0.1, 100, False), ""),
        (mutations.Ended(mutations.TRACEBACK, "Traceback", 0.1, 100, False), "traceback"),
        (mutations.Ended(-11, "", 0.1, 100, False), "ended by -11"),
        (mutations.Ended(-9, "", 10.1, 100, True), "over 5 s"),
        (mutations.Ended(2, "", 0.1, 301, False), "memory"),
        (mutations.Ended(2, "\x1b[31m", 0.1, 100, False), "escape sequence"),
    ],
)
def test_what_counts_as_a_failure(ended: mutations.Ended, failure: str):
    assert ended.failure == failure


def test_tracebacks_and_hangs_are_seen(monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise KeyError("x")

    assert mutations.call(fail).failure == "traceback"
    monkeypatch.setattr(mutations, "SECONDS", 0.1)
    assert mutations.call(signal.pause).failure == "over 5 s"
