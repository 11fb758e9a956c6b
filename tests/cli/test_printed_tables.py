"""Tables on terminals and in pipes: rows of one line, and names that can be copied."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from compresslab.cli import tables

LONG = "a-rather-long-name-of-a-variant-that-somebody-will-copy-into-a-command"
ROWS = [(LONG, "1", "words that may well be wrapped where the terminal has no room for them " * 3), ("[red]b", "22", "x")]


def shown(screen: Console, *, whole: tuple[str, ...] = ("name",)) -> str:
    tables.show_table(screen, tables.table(("name", "count", "text"), ROWS, right=("count",), whole=whole), "[bold]a title[/bold]")
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_in_a_pipe_each_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    lines = shown(tables.console()).splitlines()
    assert lines[0] == "[bold]a title[/bold]"
    assert [line.split()[0] for line in lines[1:] if line.strip() and "─" not in line] == ["name", LONG, "[red]b"]
    assert ROWS[0][2].strip() in "".join(lines)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_names_and_numbers_are_whole_on_a_narrow_terminal(width: int) -> None:
    text = shown(Console(width=width, force_terminal=True, color_system=None, file=io.StringIO()))
    assert LONG in text
    assert " 22 " in text
    assert "words that" in text
    assert "…" not in text


def test_other_columns_are_wrapped_on_a_terminal() -> None:
    text = shown(Console(width=60, force_terminal=True, color_system=None, file=io.StringIO()), whole=())
    assert max(map(len, text.splitlines())) <= 60
    assert LONG not in text
