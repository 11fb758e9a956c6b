"""Tables on the terminal and in a pipe. In a pipe each row is one line. Names are neither cut nor wrapped, so that they can be copied."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from compresslab.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Columns of a pipe or a file, which has no edge.
UNLIMITED = 100_000
# A column of words is not narrower, whatever the names beside it take.
LEAST_WORDS = 16
BETWEEN = 3  # columns of the terminal between two of a table, and before the first


def console() -> Console:
    """Standard output: as wide as the terminal, and of unlimited width where there is none."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=UNLIMITED)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
    dim: Collection[int] = (),
) -> Table:
    """A table of plain texts, which are no markup.

    Args:
        right: headings of the columns of numbers. whole: headings of the columns of names that people copy. If the terminal is too narrow
            for the names, it breaks the line itself, and what is copied is whole.
        dim: places of the rows that matter less.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    texts = [[printable(cell) for cell in row] for row in rows]
    for place, heading in enumerate(headings):
        widest = max((cell_len(cell) for cell in (heading, *(row[place] for row in texts))), default=0)
        made.add_column(
            heading,
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=heading in whole or heading in right,
            min_width=widest if heading in whole or heading in right else min(widest, LEAST_WORDS),
        )
    for number, row in enumerate(texts):
        made.add_row(*map(Text, row), style="dim" if number in dim else None)
    return made


def show_table(on: Console, shown: Table, title: str = "") -> None:
    """Print a table below its title."""
    from rich.text import Text

    if title:
        on.print(Text(printable(title), style="italic"), soft_wrap=True)
    least = sum((column.min_width or 0) + BETWEEN for column in shown.columns)
    if least > on.width:  # rich would leave nothing of some columns; the terminal breaks lines that are too long
        shown.width = least
    on.print(shown, crop=False)


def say(on: Console, *lines: str) -> None:
    """Print lines of plain text, which the terminal breaks where it must."""
    for line in lines:
        on.print(printable(line), highlight=False, markup=False, soft_wrap=True)
