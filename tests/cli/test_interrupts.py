"""Signals that end a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from compresslab.cli.interrupts import ENDING, Interrupts
from compresslab.runner import processes


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", ENDING)
def test_the_first_signal_interrupts_and_those_after_it_end_the_patience(signum: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = []
    monkeypatch.setattr(processes, "hurry", lambda: hurried.append(signum))
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        os.kill(os.getpid(), signum)
    assert interrupts.exit_code == 128 + signum
    for again in ENDING:
        os.kill(os.getpid(), again)
    assert len(hurried) == len(ENDING)
    assert interrupts.received == signum


def test_a_signal_that_is_ignored_at_the_start_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not interrupts.received
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_without_a_signal_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(signum) for signum in ENDING]
    with Interrupts():
        assert [signal.getsignal(signum) for signum in ENDING] != before
    assert [signal.getsignal(signum) for signum in ENDING] == before


def test_a_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def inside() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.slow
def test_a_terminal_that_is_gone_changes_no_exit_code() -> None:
    """Whatever was still to be printed fails then."""
    command = [sys.executable, "-c", TERMINAL_GOES]
    assert subprocess.run(command, check=False).returncode == 129


TERMINAL_GOES = """
import os, signal
from compresslab.cli import main
def app(**_):
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1), os.dup2(writing, 2)
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        print("more")
main.app = app
main.main()
"""
