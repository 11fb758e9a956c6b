"""Progress of a run: bars on a terminal, lines elsewhere, and all lines in the run's log; one line every 30 s at the latest."""

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
from compresslab.cli.options import duration, number_of
from compresslab.records import Failure
from compresslab.runner.processes import Listener
from compresslab.runner.watcher import Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from compresslab.models.progress import Amount
    from compresslab.plan.graph import Node, Plan
    from compresslab.runner.store import Store

INTERVAL = 25.0


class ProgressPrinter(Watcher, Listener):
    """Tells what a run does. A thread of the command itself tells it, so that work that hangs is told of, too.

    Args:
        interval: seconds between two lines at the most.
        now: seconds, only going forward.
    """

    def __init__(self, console: Console, interval: float = INTERVAL, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.interval, self.now = console, interval, now
        self.node: NodeProgress | None = None
        self.said = now()
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.log: Path | None = None
        self.store: Store | None = None
        self.todo: dict[str, float] = {}
        self.key = ""
        self.number, self.total = 0, 0
        self.failures: list[Failure] = []
        self.bars = _bars(console) if _shows_bars(console) else None
        self.node_bar: TaskID | None = None
        self.study_bar: TaskID | None = None

    def __enter__(self) -> ProgressPrinter:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        self._stop_bars()
        if error is not None:
            self._write(f"stopped: {str(error) or type(error).__name__}")

    def say(self, text: str, *, shown: bool = True) -> None:
        """A line with the clock: into the log, and onto the terminal unless bars show there what it says."""
        with self.lock:
            line = self._write(text)
            if shown or self.bars is None:
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def during(self, what: str) -> None:
        """A part of the run that is no node goes on from here."""
        with self.lock:
            self._stop_bars()
            self.node = NodeProgress(what, self.now())

    def study(self, name: str, seconds: Mapping[str, float | None], store: Store) -> None:
        """A study starts: from here all lines go into its log, too.

        Args:
            seconds: estimates of the nodes that are to run, by key.
        """
        with self.lock:
            self._stop_bars()
            self.log, self.store = store.run_log(name), store
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.todo = {key: estimated or 0.0 for key, estimated in seconds.items()}
            self.number, self.total = 0, len(self.todo)
            if self.bars is not None and self.todo:
                self.bars.start()
                self.study_bar = self.bars.add_task(name, total=self._rest() or 1.0, note="", left=duration(self._rest()))

    def planned(self, plan: Plan, store: Store) -> None:
        """The nodes of a study are about to run: what that comes to here, and what would make it shorter if it is long."""
        from compresslab.cli.plan import costs, seconds_left, summary
        from compresslab.plan.advice import advice

        self.failures = []
        rows = costs(plan, store)
        seconds, study = seconds_left(rows), plan.recipe.study
        self.study(study, seconds, store)
        for line in [f"{study}: {number_of(len(rows), 'node')}; {summary(rows)}. Log: {store.run_log(study)}", *advice(plan, seconds)]:
            self.say(line)

    def starting(self, node: Node, estimated: float | None) -> Listener:
        """A node starts."""
        with self.lock:
            self.number, self.key = self.number + 1, node.key
            log = self.store.logs / f"{node.key}.log" if self.store else None
            self.node = NodeProgress(f"[{self.number}/{self.total}] {node.label}", self.now(), estimated, log)
            about = "" if estimated is None else f", about {duration(estimated)}"
            self.say(f"{self.node.label}: starts{about}", shown=False)
            if self.bars is not None:
                self.node_bar = self.bars.add_task(f"{clock()} {self.node.label}", total=1.0, note="starting", left=duration(estimated))
        return self

    def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
        """The node that runs reports."""
        with self.lock:
            if self.node is not None:
                self.node.hear(share, text, amount, self.now())
                self._move_bars()

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        """A node ended."""
        if failure:
            self.failures.append(Failure(node=node.label, cause=failure))
        with self.lock:
            self.todo[node.key] = 0.0
            rest = f"; about {duration(self._rest())} left in all" if self._rest() else ""
            self.say(
                f"[{self.number}/{self.total}] {node.label}: {f'failed: {failure}' if failure else f'done in {duration(seconds)}'}{rest}"
            )
            if self.bars is not None and self.node_bar is not None:
                self.bars.remove_task(self.node_bar)
            self.node = self.node_bar = None

    def lost(self, node: Node, cause: str) -> None:
        """A node is not run."""
        self.failures.append(Failure(node=node.label, cause=cause))
        with self.lock:
            self.number += 1
            self.todo[node.key] = 0.0
            self.say(f"[{self.number}/{self.total}] {node.label}: {cause}")

    def assessing(self, plan: Plan) -> None:
        """The nodes have run."""
        published = plan.recipe.evaluate.source == "published"
        self.during("assess published scores" if published else "compute densities and write the report")

    def remind(self) -> None:
        """Tell what goes on if nothing was told for long, and if it has taken far too long."""
        with self.lock:
            if self.node is None:
                return
            if late := self.node.overdue(self.now()):
                self.say(f"{self.node.label} {late}")
            if self.now() - self.said >= self.interval:
                self.say(f"{self.node.label}: {self.node.line(self.now())}", shown=False)
            self._move_bars()

    def _watch(self) -> None:
        while not self.over.wait(min(1.0, self.interval / 4)):
            with contextlib.suppress(OSError):  # a pipe that nobody reads any more is met again by the next line of the run itself
                self.remind()

    def _rest(self) -> float:
        """Seconds of all nodes that are still to run, by their estimates."""
        return sum(self.todo.values())

    def _move_bars(self) -> None:
        if self.bars is None or self.node is None or self.node_bar is None:
            return
        now = self.now()
        self.bars.update(self.node_bar, completed=self.node.last.share, note=self.node.note(now), left=duration(self.node.left(now)))
        self.todo[self.key] = self.node.left(now) or 0.0
        if self.study_bar is not None:
            whole = self.bars.tasks[self.bars.task_ids.index(self.study_bar)].total or 1.0
            self.bars.update(self.study_bar, completed=max(0.0, whole - self._rest()), left=duration(self._rest()))

    def _stop_bars(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            for bar in self.bars.task_ids:
                self.bars.remove_task(bar)
        self.node_bar = self.study_bar = None

    def _write(self, text: str) -> str:
        """Put a line into the log; gives it with its clock. A disk that is full must not end the run here."""
        self.said = self.now()
        line = f"{clock()} {' '.join(text.split())}"
        if self.log is not None:
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d')} {line}\n")
        return line


def _shows_bars(console: Console) -> bool:
    """Whether somebody watches: colours that are forced into a pipe are no terminal, and a terminal of a CI run ends in a file."""
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
