"""Records as HTML, for notebooks: each shows itself as a table of what it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Protocol, runtime_checkable

from pydantic import BaseModel

LONGEST = 300  # characters of a text
MOST_ROWS = 200


@runtime_checkable
class Short(Protocol):
    """A record that fits into one cell."""

    def short_html(self) -> str:
        """The record as one value."""
        ...


def as_html(record: BaseModel) -> str:
    """A record's fields, one a row; lists of records as tables of their own."""
    title = f"<strong>{escape(type(record).__name__)}</strong>"
    rows = "".join(_pair(name, value) for name, value in record)
    return f"{title}<table>{rows}</table>"


def _pair(name: str, value: object) -> str:
    return f"<tr><th style='text-align:left;vertical-align:top'>{escape(name)}</th><td>{_value(value)}</td></tr>"


def _value(value: object) -> str:
    if isinstance(value, Short):
        return value.short_html()
    if isinstance(value, BaseModel):
        return f"<details><summary>{escape(type(value).__name__)}</summary>{as_html(value)}</details>"
    if isinstance(value, Mapping):
        inner = "".join(_pair(str(key), one) for key, one in value.items())
        return f"<table>{inner}</table>" if value else ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and all(isinstance(one, BaseModel) for one in value):
            return _table([one for one in value if isinstance(one, BaseModel)])
        return escape(", ".join(map(str, value[:MOST_ROWS]))[:LONGEST])
    return _plain(value)


def _table(records: Sequence[BaseModel]) -> str:
    """Records as rows; what is no single value or interval in any of them is left to whoever opens the record."""
    names = [name for name in type(records[0]).model_fields if any(_single(getattr(record, name)) for record in records)]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    singles = ((getattr(record, name) for name in names) for record in records[:MOST_ROWS])
    body = "".join(_row(_value(one) if _single(one) else "" for one in row) for row in singles)
    more = f"<p>and {len(records) - MOST_ROWS} more</p>" if len(records) > MOST_ROWS else ""
    told = f"{len(records)} × {escape(type(records[0]).__name__)}"
    return f"<details open><summary>{told}</summary><table><tr>{head}</tr>{body}</table>{more}</details>"


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _single(value: object) -> bool:
    return isinstance(value, (str, int, float, Short))


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def number(value: float) -> str:
    """A number in four digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)
