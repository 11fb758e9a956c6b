"""Progress of the current work: share done, rate, time left, and their text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from compresslab import __version__
from compresslab.cli.options import duration

if TYPE_CHECKING:
    from compresslab.models.progress import Amount

# A node is reported as overdue after this many times its estimate.
OVERDUE_FACTOR = 10
# Seconds without a report after which the line says so.
QUIET_SECONDS = 20


def first_line(*recipes: Path) -> None:
    """Print that the command has started, before slow work: the first probe of this machine takes seconds."""
    typer.echo(f"{clock()} compresslab {__version__}: {', '.join(map(str, recipes))}")


def clock() -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S")


class ProgressReport(NamedTuple):
    """A report: its time in seconds, the share of the work done, and the amount."""

    time: float
    share: float
    amount: Amount | None = None

    @property
    def unit(self) -> str:
        """Unit of the amount, "" without an amount."""
        return self.amount.unit if self.amount else ""


class NodeProgress:
    """The progress of a node or another part of a run. Times are seconds on a monotonic clock.

    Attributes:
        first: the report from which the rate is measured, after loading or resuming. before: the report before it. last: the latest report.
    """

    def __init__(self, label: str, now: float, estimated: float | None = None, log: Path | None = None) -> None:
        self.label, self.started, self.estimated, self.log = label, now, estimated, log
        self.before = self.first = self.last = ProgressReport(now, 0.0)
        self.text = ""
        self.overdue_reported = False

    def update(self, share: float, text: str, amount: Amount | None, now: float) -> None:
        report = ProgressReport(now, share, amount)
        if self.first.share == 0 or share < self.last.share or report.unit != self.first.unit:
            self.before, self.first = self.last, report
        self.last, self.text = report, text

    def seconds_left(self, now: float) -> float | None:
        """Seconds left by the measured rate; before it is known, the larger of the estimate and the value from the first report."""
        if (pace := self._pace()) is not None:
            return (1 - self.last.share) / pace
        return max((value for value in (self._estimated_seconds_left(now), self._first_seconds_left()) if value is not None), default=None)

    def line(self, now: float) -> str:
        """The state in one line."""
        if not self.text:
            return f"going on for {duration(now - self.started)}"
        share = f"{self.last.share:.0%}" if self.last.share else ""
        return ", ".join(filter(None, [share, *self._details(), self._time_left(now), self._quiet(now)]))

    def note(self, now: float) -> str:
        """The text beside a progress bar."""
        return ", ".join(filter(None, [*self._details(), self._quiet(now)])) or "starting"

    def overdue(self, now: float) -> str:
        """A message, once, when the work has taken `OVERDUE_FACTOR` times its estimate; otherwise ""."""
        elapsed = now - self.started
        if self.overdue_reported or self.estimated is None or elapsed <= OVERDUE_FACTOR * self.estimated:
            return ""
        self.overdue_reported = True
        return f"has taken {duration(elapsed)} so far and was estimated to take {duration(self.estimated)}; it goes on" + (
            f". Its log: {self.log}" if self.log else ""
        )

    def _details(self) -> list[str]:
        """The text, amount and rate of the latest report."""
        amount = self.last.amount
        return [self.text] if amount is None else [self.text, f"{amount.done:,.0f} of {amount.total:,.0f} {amount.unit}", self._rate()]

    def _quiet(self, now: float) -> str:
        """Time since the latest report, if it is at least `QUIET_SECONDS`."""
        seconds = now - self.last.time
        return f"nothing reported for {duration(seconds)}" if seconds >= QUIET_SECONDS else ""

    def _pace(self) -> float | None:
        """Share per second."""
        share, seconds = self.last.share - self.first.share, self.last.time - self.first.time
        return share / seconds if share > 0 and seconds > 0 else None

    def _estimated_seconds_left(self, now: float) -> float | None:
        return None if self.estimated is None else max(0.0, self.estimated - (now - self.started))

    def _first_seconds_left(self) -> float | None:
        """Seconds left at the rate of the first report: too many after loading, too few after resuming."""
        before, first = self.before, self.first
        done = first.share - (before.share if before.share < first.share else 0.0)
        return (1 - first.share) * (first.time - before.time) / done if done > 0 else None

    def _rate(self) -> str:
        """Units per second, as text."""
        first, last = self.first, self.last
        if first.amount is None or last.amount is None or last.time <= first.time or last.amount.done <= first.amount.done:
            return ""
        rate = (last.amount.done - first.amount.done) / (last.time - first.time)
        return f"{rate:,.0f} {last.unit}/s" if rate >= 10 else f"{rate:.2g} {last.unit}/s"

    def _time_left(self, now: float) -> str:
        seconds = self.seconds_left(now)
        if seconds and self._pace() is None and seconds == self._estimated_seconds_left(now):
            return f"about {duration(seconds)} left by the estimate"
        return f"{duration(seconds)} left" if seconds else ""
