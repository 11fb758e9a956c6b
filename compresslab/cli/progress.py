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
from compresslab.runner.run import Watcher, to_do
from compresslab.runner.store import Store

# Before this share of a node is done its own pace says less than the estimate.
PACE_COUNTS_FROM = 0.05


class NodeBar(Listener):
    """The bar of one node."""

    def __init__(self, bars: Bars, node: Node, estimated: float | None) -> None:
        self.bars, self.node, self.estimated = bars, node, estimated
        self.began = time.monotonic()
        self.task: TaskID = bars.progress.add_task(node.label, total=1.0, note="starting", left=duration(estimated))

    def progress(self, share: float, text: str) -> None:
        """Move the bar and guess the rest from the pace so far."""
        spent = time.monotonic() - self.began
        left = spent / share - spent if share > PACE_COUNTS_FROM else self.estimated
        self.bars.progress.update(self.task, completed=share, note=text, left=duration(left))
        self.bars.count(self.node, left or 0.0)


class Bars(Watcher):
    """Bars on a terminal; one line a finished node where the output is a file."""

    def __init__(self, console: Console, plan: Plan, store: Store) -> None:
        self.console = console
        self.todo = {node.key: estimate(node, plan).seconds or 0.0 for node in to_do(plan, store)}
        self.total, self.finished = len(self.todo), 0
        self.seconds = sum(self.todo.values()) or 1.0
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
            self.study = self.progress.add_task("study", total=self.seconds, note="", left=duration(self.seconds))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def starting(self, node: Node, estimated: float | None) -> Listener:
        """Show a bar for the node."""
        self.bar = NodeBar(self, node, estimated)
        return self.bar

    def count(self, node: Node, left: float) -> None:
        """Tell the study's bar how many seconds of a node are left."""
        self.todo[node.key] = left
        if self.study is not None:
            rest = sum(self.todo.values())
            self.progress.update(self.study, completed=max(0.0, self.seconds - rest), left=duration(rest))

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        """Replace the node's bar by a line that stays."""
        if self.bar is not None:
            self.progress.remove_task(self.bar.task)
        self.finished += 1
        state = f"failed: {failure}" if failure else f"done in {duration(seconds)}"
        self.progress.console.print(f"[{self.finished}/{self.total}] {node.label}: {state}", markup=False, highlight=False)
        self.count(node, 0.0)
