"""Progress of a run: bars on a terminal, lines elsewhere, all lines in the run's log, and at least one line every 30 s."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from compresslab.cli.node_progress import NodeProgress, clock
from compresslab.cli.options import count_of, duration
from compresslab.printable import printable
from compresslab.records import Failure
from compresslab.runner.processes import Listener
from compresslab.runner.watcher import Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from compresslab.models.progress import Amount
    from compresslab.plan.graph import Node, Plan
    from compresslab.store.store import Store

INTERVAL = 25.0


class ProgressPrinter(Watcher):
    """Prints the progress of a run from a thread of the command, so that it also reports work that hangs.

    Args:
        interval: maximum seconds between two lines.
        now: monotonic clock in seconds.
    """

    def __init__(self, console: Console, interval: float = INTERVAL, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.interval, self.now = console, interval, now
        self.part: NodeProgress | None = None
        self.nodes: dict[str, NodeProgress] = {}
        self.last_line = now()
        self.lock = threading.RLock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.log: Path | None = None
        self.store: Store | None = None
        self.todo: dict[str, float] = {}
        self.at_once = 1
        self.number, self.total = 0, 0
        self.awaited = ("", "")
        self.failures: list[Failure] = []
        self.bars = _bars(console) if _shows_bars(console) else None
        self.node_bars: dict[str, TaskID] = {}
        self.study_bar: TaskID | None = None

    def __enter__(self) -> ProgressPrinter:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join()
        self._stop_bars()
        if error is not None:
            self._write(f"stopped: {str(error) or type(error).__name__}")

    def say(self, text: str, *, shown: bool = True) -> None:
        """Write a line with the time into the log. It also goes to the terminal, unless `shown` is false and bars are shown.

        Output that the terminal or a full disk does not take is lost. If nobody reads it any more, as with `| head`, rich ends the command.
        """
        with self.lock:
            line = self._write(text)
            if shown or self.bars is None:
                with contextlib.suppress(OSError):
                    self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def start_part(self, what: str) -> None:
        """Start a part of the run that is no node."""
        with self.lock:
            self._stop_bars()
            self.nodes, self.part = {}, NodeProgress(what, self.now())

    def study(self, name: str, seconds: Mapping[str, float | None], store: Store) -> None:
        """Start a study; later lines also go into its log.

        Args:
            seconds: estimates of the nodes that are to run, by key.
        """
        with self.lock:
            self._stop_bars()
            self.log, self.store, self.part, self.nodes = store.run_log(name), store, None, {}
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.todo = {key: estimated or 0.0 for key, estimated in seconds.items()}
            self.number, self.total = 0, len(self.todo)
            if self.bars is not None and self.todo:
                self.bars.start()
                self.study_bar = self.bars.add_task(name, total=self._seconds_left() or 1.0, note="", left=duration(self._seconds_left()))

    def planned(self, plan: Plan, store: Store) -> None:
        """Print the cost of a study on this machine, and advice if it is long, before its nodes run."""
        from compresslab.cli.plan import costs, seconds_left, summary
        from compresslab.plan.advice import advice

        self.failures = []
        rows = costs(plan, store)
        seconds, study = seconds_left(rows), plan.recipe.study
        self.study(study, seconds, store)
        for line in [f"{study}: {count_of(len(rows), 'node')}; {summary(rows)}. Log: {store.run_log(study)}", *advice(plan, seconds)]:
            self.say(line)

    def starting(self, node: Node, estimated: float | None) -> Listener:
        with self.lock:
            self.number += 1
            log = self.store.logs / f"{node.key}.log" if self.store else None
            progress = NodeProgress(f"[{self.number}/{self.total}] {node.label}", self.now(), estimated, log)
            self.nodes[node.key] = progress
            self.at_once = max(self.at_once, len(self.nodes))
            estimate = "" if estimated is None else f", about {duration(estimated)}"
            self.say(f"{progress.label}: starts{estimate}", shown=False)
            if self.bars is not None:
                self.node_bars[node.key] = self.bars.add_task(
                    f"{clock()} {progress.label}", total=1.0, note="starting", left=duration(estimated)
                )
        return _NodeListener(self, node.key)

    def moved(self, key: str, share: float, text: str, amount: Amount | None) -> None:
        """A node has come further."""
        with self.lock:
            if key in self.nodes:
                self.nodes[key].update(share, text, amount, self.now())
                self._move_bars()

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        if failure:
            self.failures.append(Failure(node=node.label, cause=failure))
        with self.lock:
            self.todo[node.key] = 0.0
            time_left = f"; about {duration(self._seconds_left())} left in all" if self._seconds_left() else ""
            progress = self.nodes.pop(node.key, None)
            label = progress.label if progress else node.label
            self.say(f"{label}: {f'failed: {failure}' if failure else f'done in {duration(seconds)}'}{time_left}")
            self._remove_bar(node.key)

    def lost(self, node: Node, cause: str) -> None:
        self.failures.append(Failure(node=node.label, cause=cause))
        with self.lock:
            self.number += 1
            self.todo[node.key] = 0.0
            self.say(f"[{self.number}/{self.total}] {node.label}: {cause}")

    def waiting(self, node: Node, why: str) -> None:
        with self.lock:
            if self.awaited != (what := (node.key, why)):
                self.awaited = what
                self.say(f"{node.label}: waits, since {why}")

    def found(self, node: Node) -> None:
        with self.lock:
            self.number += 1
            self.todo[node.key] = 0.0
            self.say(f"[{self.number}/{self.total}] {node.label}: made by another run")

    def again(self, node: Node, why: str) -> None:
        with self.lock:
            self.total += 1
            self.nodes.pop(node.key, None)
            self._remove_bar(node.key)
            self.say(f"{node.label}: is made again, because {why}")

    def assessing(self, plan: Plan) -> None:
        published = plan.recipe.evaluate.source == "published"
        if published:  # no node ran, and there is no store with a log
            self.failures, self.log = [], None
        self.start_part("assess published scores" if published else "compute densities and write the report")

    def remind(self) -> None:
        """Print the current work after `interval` seconds without a line, and once if it is overdue."""
        with self.lock:
            now = self.now()
            quiet = now - self.last_line >= self.interval
            for progress in filter(None, [self.part, *self.nodes.values()]):
                if overdue := progress.overdue(now):
                    self.say(f"{progress.label} {overdue}")
                if quiet:
                    self.say(f"{progress.label}: {progress.line(now)}", shown=False)
            self._move_bars()

    def _watch(self) -> None:
        while not self.stopped.wait(min(1.0, self.interval / 4)):
            with contextlib.suppress(OSError):  # a closed pipe raises again at the next line of the run itself
                self.remind()

    def _seconds_left(self) -> float:
        """Estimated seconds of all nodes that are still to run, as many at once as have been."""
        return sum(self.todo.values()) / self.at_once

    def _move_bars(self) -> None:
        if self.bars is None:
            return
        now = self.now()
        for key, progress in self.nodes.items():
            left = progress.seconds_left(now)
            self.bars.update(self.node_bars[key], completed=progress.last.share, note=progress.note(now), left=duration(left))
            self.todo[key] = left or 0.0
        if self.study_bar is not None and self.nodes:
            total = self.bars.tasks[self.bars.task_ids.index(self.study_bar)].total or 1.0
            self.bars.update(self.study_bar, completed=max(0.0, total - self._seconds_left()), left=duration(self._seconds_left()))

    def _remove_bar(self, key: str) -> None:
        if self.bars is not None and key in self.node_bars:
            self.bars.remove_task(self.node_bars.pop(key))

    def _stop_bars(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            for bar in self.bars.task_ids:
                self.bars.remove_task(bar)
        self.node_bars, self.study_bar = {}, None

    def _write(self, text: str) -> str:
        """Write a line into the log and return it with the time. A full disk must not end the run here."""
        self.last_line = self.now()
        line = f"{clock()} {printable(' '.join(text.split()))}"
        if self.log is not None:
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d')} {line}\n")
        return line


class _NodeListener(Listener):
    """Hears the progress of one node."""

    def __init__(self, printer: ProgressPrinter, key: str) -> None:
        self.printer, self.key = printer, key

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        self.printer.moved(self.key, share, text, amount)


def _shows_bars(console: Console) -> bool:
    """Whether bars are useful: not in a pipe with forced colours, and not in CI, where the terminal is a log file."""
    return console.is_interactive and console.file.isatty() and not os.environ.get("CI")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]} left", markup=False),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
    )
