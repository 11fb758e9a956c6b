"""Signals that end a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from compresslab.children import ENDING
from compresslab.cli import interrupts
from compresslab.cli.interrupts import Interrupts
from compresslab.runner import processes


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the workers. Each signal counts, however soon after another one it comes."""
    done: list[str] = []
    monkeypatch.setattr(interrupts, "OF_ONE_CAUSE", 0)
    monkeypatch.setattr(processes, "hurry", lambda: done.append("hurried"))
    return done


@pytest.mark.parametrize("signum", ENDING)
def test_the_first_signal_interrupts_and_the_second_one_ends_the_patience(signum: signal.Signals, hurried: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupted:
        os.kill(os.getpid(), signum)
    assert interrupted.exit_code == 128 + signum
    os.kill(os.getpid(), signal.SIGTERM)
    assert hurried == ["hurried"]
    assert interrupted.received == signum


def test_tidying_up_is_not_interrupted_again(hurried: list[str]) -> None:
    tidied = False
    with pytest.raises(KeyboardInterrupt), Interrupts():  # noqa: PT012  # the order of what it holds is what is tested
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            try:
                raise OSError("while it tidies up")
            except OSError:
                os.kill(os.getpid(), signal.SIGINT)
                tidied = True
    assert (tidied, hurried) == (True, ["hurried"])


class Swallows:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_somebody_has_swallowed_comes_again(hurried: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():  # noqa: PT012
        Swallows()
        assert not hurried, "the code goes on after the first signal"
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it goes on after the second one")
    assert hurried == ["hurried"]


def test_signals_of_one_cause_count_once(hurried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` sends its signal to the process and to its group."""
    monkeypatch.setattr(interrupts, "OF_ONE_CAUSE", 60)
    with pytest.raises(KeyboardInterrupt), Interrupts():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
    assert not hurried


def test_the_third_signal_ends_the_process() -> None:
    assert subprocess.run([sys.executable, "-c", STUBBORN], check=False, timeout=60).returncode == 143


STUBBORN = """
import os, signal
from compresslab.cli import interrupts
interrupts.OF_ONE_CAUSE = 0
with interrupts.Interrupts():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except:
            pass
"""


def test_a_signal_that_is_ignored_at_the_start_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupted:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not interrupted.received
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
