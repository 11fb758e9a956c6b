"""What is known of the work that goes on, and how it is told: how far, how fast, how long still."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from compresslab import __version__
from compresslab.cli.options import duration

if TYPE_CHECKING:
    from compresslab.models.progress import Amount

# Times its estimate, after which a node is told to be late.
LATE = 10
# Seconds without a report that are worth telling.
QUIET = 20


def first_line(*recipes: Path) -> None:
    """Say that the command has begun, before anything that takes time: the first look at this machine takes seconds."""
    typer.echo(f"{clock()} compresslab {__version__}: {', '.join(map(str, recipes))}")


def clock() -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S")


class Mark(NamedTuple):
    """A report: when it came, and how far the work was."""

    at: float
    share: float
    amount: Amount | None = None

    @property
    def unit(self) -> str:
        """What is counted, if anything is."""
        return self.amount.unit if self.amount else ""


class NodeProgress:
    """The work that goes on: a node, or another part of a run. Times are seconds on a clock that only goes forward.

    Attributes:
        first: the report that the pace is measured from. What was loaded or taken over before it is no pace. before: the report before it.
        last: the latest report.
    """

    def __init__(self, label: str, now: float, estimated: float | None = None, log: Path | None = None) -> None:
        self.label, self.began, self.estimated, self.log = label, now, estimated, log
        self.before = self.first = self.last = Mark(now, 0.0)
        self.text = ""
        self.late = False

    def hear(self, share: float, text: str, amount: Amount | None, now: float) -> None:
        """Take in a report."""
        mark = Mark(now, share, amount)
        if self.first.share == 0 or share < self.last.share or mark.unit != self.first.unit:
            self.before, self.first = self.last, mark
        self.last, self.text = mark, text

    def left(self, now: float) -> float | None:
        """Seconds to go, by the measured pace; before there is one, by the estimate or the first report, whichever says more."""
        if (pace := self._pace()) is not None:
            return (1 - self.last.share) / pace
        return max((known for known in (self._estimated_rest(now), self._first_rest()) if known is not None), default=None)

    def line(self, now: float) -> str:
        """All that is known, in one line."""
        if not self.text:
            return f"going on for {duration(now - self.began)}"
        share = f"{self.last.share:.0%}" if self.last.share else ""
        return ", ".join(filter(None, [share, *self._told(), self._rest(now), self._silence(now)]))

    def note(self, now: float) -> str:
        """What a bar does not show by itself."""
        return ", ".join(filter(None, [*self._told(), self._silence(now)])) or "starting"

    def overdue(self, now: float) -> str:
        """Once, when the work has taken ten times its estimate, what there is to say of that; otherwise nothing."""
        spent = now - self.began
        if self.late or self.estimated is None or spent <= LATE * self.estimated:
            return ""
        self.late = True
        return f"has taken {duration(spent)} so far and was estimated to take {duration(self.estimated)}; it goes on" + (
            f". Its log: {self.log}" if self.log else ""
        )

    def _told(self) -> list[str]:
        """What the work said of itself."""
        amount = self.last.amount
        return [self.text] if amount is None else [self.text, f"{amount.done:,.0f} of {amount.total:,.0f} {amount.unit}", self._rate()]

    def _silence(self, now: float) -> str:
        """Since when nothing was reported, if that is long."""
        quiet = now - self.last.at
        return f"nothing reported for {duration(quiet)}" if quiet >= QUIET else ""

    def _pace(self) -> float | None:
        """Share a second."""
        share, seconds = self.last.share - self.first.share, self.last.at - self.first.at
        return share / seconds if share > 0 and seconds > 0 else None

    def _estimated_rest(self, now: float) -> float | None:
        return None if self.estimated is None else max(0.0, self.estimated - (now - self.began))

    def _first_rest(self) -> float | None:
        """Seconds to go if all goes as what the first report told of: too many after loading, too few after a takeover."""
        before, first = self.before, self.first
        done = first.share - (before.share if before.share < first.share else 0.0)
        return (1 - first.share) * (first.at - before.at) / done if done > 0 else None

    def _rate(self) -> str:
        """Units a second."""
        first, last = self.first, self.last
        if first.amount is None or last.amount is None or last.at <= first.at or last.amount.done <= first.amount.done:
            return ""
        rate = (last.amount.done - first.amount.done) / (last.at - first.at)
        return f"{rate:,.0f} {last.unit}/s" if rate >= 10 else f"{rate:.2g} {last.unit}/s"

    def _rest(self, now: float) -> str:
        rest = self.left(now)
        if rest and self._pace() is None and rest == self._estimated_rest(now):
            return f"about {duration(rest)} left by the estimate"
        return f"{duration(rest)} left" if rest else ""
