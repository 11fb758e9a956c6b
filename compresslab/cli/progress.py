"""Progress on the terminal: a bar for the study, one for the node that runs, with remaining time."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from compresslab.cli.options import duration
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Node, Plan
from compresslab.runner.executors import Listener
from compresslab.runner.run import Watcher, is_done
from compresslab.runner.store import Store

# Before this share of a node is done its own pace says less than the estimate.
PACE_COUNTS_FROM = 0.05


class NodeBar(Listener):
    """The bar of one node."""

    def __init__(self, bars: Bars, label: str, estimated: float | None) -> None:
        self.bars, self.label, self.estimated = bars, label, estimated
        self.began = time.monotonic()
        self.task: TaskID = bars.progress.add_task(label, total=1.0, note="starting", left=duration(estimated))

    def progress(self, share: float, text: str) -> None:
        """Move the bar and guess the rest from the pace so far."""
        spent = time.monotonic() - self.began
        left = spent / share - spent if share > PACE_COUNTS_FROM else self.estimated
        self.bars.progress.update(self.task, completed=share, note=text, left=duration(left))


class Bars(Watcher):
    """Bars on a terminal; one line a finished node where the output is a file."""

    def __init__(self, console: Console, plan: Plan, store: Store) -> None:
        self.console = console
        self.todo = {node.key: estimate(node, plan).seconds or 0.0 for node in plan.nodes if not is_done(node, store)}
        self.total, self.finished = len(self.todo), 0
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left", markup=False),
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
            console=console,
            transient=True,
        )
        self.study: TaskID | None = None
        self.bar: NodeBar | None = None

    def __enter__(self) -> Bars:
        if self.todo:
            self.progress.start()
            self.study = self.progress.add_task("study", total=sum(self.todo.values()) or 1.0, note="", left=duration(sum(self.todo.values())))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def starting(self, node: Node, estimated: float | None) -> Listener:
        """Show a bar for the node."""
        self.bar = NodeBar(self, node.label, estimated)
        return self.bar

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        """Replace the node's bar by a line that stays."""
        if self.bar is not None:
            self.progress.remove_task(self.bar.task)
        self.finished += 1
        state = f"failed: {failure}" if failure else f"done in {duration(seconds)}"
        self.progress.console.print(f"[{self.finished}/{self.total}] {node.label}: {state}", markup=False, highlight=False)
        self.todo.pop(node.key)
        if self.study is not None:
            left = sum(self.todo.values())
            total = next(task.total for task in self.progress.tasks if task.id == self.study) or 1.0
            self.progress.update(self.study, completed=total - left, left=duration(left))
