"""What a run says of itself while it goes on."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from compresslab.cli.node_progress import NodeProgress
from compresslab.cli.progress import ProgressPrinter
from compresslab.models.progress import Amount
from compresslab.plan.graph import Node
from compresslab.store.store import Store

CLOCK = r"\d\d:\d\d:\d\d "


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tokens(done: float) -> Amount:
    return Amount(done, 24_576, "tokens")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pipe() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def printer(tmp_path: Path, clock: Clock, pipe: io.StringIO) -> ProgressPrinter:
    """Signs into a pipe of 40 columns, of a study of two nodes that are estimated at 4 minutes each. No thread beats."""
    made = ProgressPrinter(Console(file=pipe, width=40), now=clock)
    made.study("tiny", {"first": 240.0, "second": 240.0}, Store(tmp_path / "store"))
    return made


def test_a_node_starts_with_the_clock_its_number_and_its_estimate(printer: ProgressPrinter, pipe: io.StringIO) -> None:
    printer.starting(Node("model", "base", "first"), 240.0)
    assert re.fullmatch(CLOCK + r"\[1/2\] load base: starts, about 4 min\n", pipe.getvalue())


def test_an_end_tells_its_time_and_what_is_left(printer: ProgressPrinter, pipe: io.StringIO) -> None:
    for number, key in enumerate(("first", "second")):
        node = Node("model", "base", key)
        printer.starting(node, 240.0)
        printer.ended(node, 75.0, "no luck" if number else "")
    first, second = (line for line in pipe.getvalue().splitlines() if "starts" not in line)
    assert re.fullmatch(CLOCK + r"\[1/2\] load base: done in 75 s; about 4 min left in all", first)
    assert re.fullmatch(CLOCK + r"\[2/2\] load base: failed: no luck", second)


def test_what_is_not_run_is_told_and_takes_no_time(printer: ProgressPrinter, pipe: io.StringIO) -> None:
    node = Node("model", "base", "first")
    printer.starting(node, 240.0)
    printer.ended(node, 75.0, "no luck")
    printer.lost(Node("evaluate", "base", "second"), "not run, because “load base” failed")
    *_, line = pipe.getvalue().splitlines()
    assert re.fullmatch(CLOCK + r"\[2/2\] evaluate base: not run, because “load base” failed", line)
    assert sum(printer.todo.values()) == 0


def test_a_heartbeat_tells_what_how_far_how_fast_and_how_long_still(printer: ProgressPrinter, clock: Clock, pipe: io.StringIO) -> None:
    heard = printer.starting(Node("model", "base", "first"), 240.0)
    heard.progress(0.0, "loading")
    clock.seconds += 10
    heard.progress(0.25, "loss 3.300", tokens(6_144))
    clock.seconds += 10
    heard.progress(0.5, "loss 3.214", tokens(12_288))
    printer.remind()
    assert "loss" not in pipe.getvalue(), "the last line is 20 s old"
    clock.seconds += 10
    heard.progress(0.75, "loss 3.102", tokens(18_432))
    printer.remind()
    *_, line = pipe.getvalue().splitlines()
    assert re.fullmatch(CLOCK + r"\[1/2\] load base: 75%, loss 3\.102, 18,432 of 24,576 tokens, 614 tokens/s, 10 s left", line)


def test_a_worker_that_says_nothing_is_told_of_every_interval_in_terminal_and_log(
    printer: ProgressPrinter, clock: Clock, pipe: io.StringIO
) -> None:
    heard = printer.starting(Node("model", "base", "first"), 240.0)
    heard.progress(0.5, "reading")
    for _ in range(100):
        clock.seconds += 1
        printer.remind()
    told = [line for line in pipe.getvalue().splitlines() if "nothing reported" in line]
    assert [line.partition("nothing reported for ")[2] for line in told] == ["25 s", "50 s", "75 s", "2 min"]
    assert printer.store is not None
    logged = printer.store.run_log("tiny").read_text().splitlines()
    assert [line.partition(" ")[2] for line in logged] == pipe.getvalue().splitlines()


def test_the_thread_tells_of_work_that_hangs() -> None:
    pipe = io.StringIO()
    with ProgressPrinter(Console(file=pipe), interval=0.02) as printer:
        printer.start_part("work that hangs")
        deadline = time.monotonic() + 30
        while pipe.getvalue().count("work that hangs: going on for") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_ten_times_the_estimate_is_told_once(printer: ProgressPrinter, clock: Clock, pipe: io.StringIO) -> None:
    printer.starting(Node("model", "base", "first"), 240.0)
    clock.seconds += 2400
    printer.remind()
    assert "estimated to take" not in pipe.getvalue()
    for _ in range(3):
        clock.seconds += 60
        printer.remind()
    (line,) = (line for line in pipe.getvalue().splitlines() if "estimated to take" in line)
    assert printer.store is not None
    log = printer.store.logs / "first.log"
    assert line.endswith(f"load base has taken 41 min so far and was estimated to take 4 min; it goes on. Its log: {log}")


def test_lines_are_whole_in_a_narrow_pipe_and_whatever_a_message_holds(printer: ProgressPrinter, pipe: io.StringIO) -> None:
    node = Node("model", "base", "first")
    printer.starting(node, 240.0)
    printer.ended(node, 1.0, "[bold]one\ntwo[/bold] " + "three " * 30)
    start, end = pipe.getvalue().splitlines()
    assert "starts" in start
    assert "failed: [bold]one two[/bold] three three" in end


def test_a_terminal_has_bars_and_the_log_has_the_lines(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    store = Store(tmp_path)
    with ProgressPrinter(Console(file=terminal, width=200, force_terminal=True), now=clock) as printer:
        printer.study("tiny", {"first": 240.0}, store)
        node = Node("model", "base", "first")
        heard = printer.starting(node, 240.0)
        heard.progress(0.5, "loss 3.214", tokens(12_288))
        assert printer.bars is not None
        printer.bars.refresh()
        clock.seconds += 31
        printer.remind()
        printer.ended(node, 31.0, "")
    shown = terminal.getvalue()
    assert "[1/1] load base" in shown
    assert "loss 3.214, 12,288 of 24,576 tokens" in shown
    assert "starts" not in shown
    logged = store.run_log("tiny").read_text()
    assert [word in logged for word in ("starts, about 4 min", "50%, loss 3.214", "done in 31 s")] == [True] * 3


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
def test_there_are_no_bars_where_nobody_watches(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert ProgressPrinter(Console(file=Terminal(), force_terminal=True)).bars is not None
    assert ProgressPrinter(Console(file=io.StringIO(), force_terminal=True)).bars is None, "colours that are forced into a pipe"
    monkeypatch.setenv(name, value)
    assert ProgressPrinter(Console(file=Terminal(), force_terminal=True)).bars is None


def test_an_interruption_stands_in_the_log(tmp_path: Path, pipe: io.StringIO) -> None:
    printer = ProgressPrinter(Console(file=pipe))
    printer.study("tiny", {}, Store(tmp_path))

    def interrupted() -> None:
        with printer:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Store(tmp_path).run_log("tiny").read_text().endswith("stopped: KeyboardInterrupt\n")


def test_the_pace_counts_from_where_the_work_began() -> None:
    """What a checkpoint brought, and the time of loading, are no pace."""
    sign = NodeProgress("distill", 0.0, estimated=500.0)
    sign.update(0.0, "loading", None, 50.0)
    assert sign.seconds_left(50.0) == 450
    sign.update(0.6, "going on from step 60 of 100", tokens(60), 60.0)
    assert "left by the estimate" in sign.line(60.0)
    sign.update(0.7, "loss 3", tokens(70), 70.0)
    assert sign.seconds_left(70.0) == pytest.approx(30)
    assert "1 tokens/s, 30 s left" in sign.line(70.0)


def test_a_slow_first_step_says_more_than_the_estimate() -> None:
    sign = NodeProgress("distill", 0.0, estimated=100.0)
    sign.update(0.0, "loading", None, 10.0)
    sign.update(0.05, "loss 3", tokens(1), 70.0)
    assert sign.seconds_left(70.0) == pytest.approx(19 * 60)
    assert sign.line(70.0).endswith("1 of 24,576 tokens, 19 min left")


def test_a_second_part_has_a_pace_of_its_own() -> None:
    sign = NodeProgress("quantize", 0.0)
    for second in (10, 20, 30):
        sign.update(second / 30, "gathering", tokens(second), float(second))
    sign.update(0.1, "rounding", None, 31.0)
    sign.update(0.2, "rounding", None, 32.0)
    assert sign.seconds_left(32.0) == pytest.approx(8)
