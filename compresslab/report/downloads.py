"""The page's tables as data inside the page; its script offers them for download as CSV or JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from compresslab.records import StudyRecord
from compresslab.report.facts import comparison_with
from compresslab.report.picking.choices import choices

if TYPE_CHECKING:
    import pandas as pd


class Downloads(NamedTuple):
    """The downloads of a page.

    Attributes:
        tables: name, description and number of rows of each table. script: the tables, lineage, verdicts and what the panel picks from as
            JSON for a script element, with `<`, `>` and `&` escaped.
    """

    tables: list[tuple[str, str, int]]
    script: str


def downloads(study: StudyRecord) -> Downloads:
    """Every table of `tables.TABLES`."""
    from compresslab.report.tables import TABLES  # imports pandas, which takes as long as the page

    frames = {name: make(study) for name, make in TABLES.items()}
    tables = [(name, (TABLES[name].__doc__ or "").split("\n")[0].rstrip("."), len(frame)) for name, frame in frames.items()]
    return Downloads(tables, _script(study, frames))


def _script(study: StudyRecord, frames: dict[str, pd.DataFrame]) -> str:
    lineage = [(variant.name, variant.parent) for variant in study.variants]
    verdicts = [
        (variant.name, comparison.headline[1])
        for variant in study.variants
        if (comparison := comparison_with(variant, "parent")) is not None and comparison.ratio is not None
    ]
    tables = {name: {"columns": list(frame.columns), "rows": _rows(frame)} for name, frame in frames.items()}
    content = {"lineage": lineage, "verdicts": verdicts, "choices": choices(study), "tables": tables}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rows(frame: pd.DataFrame) -> list[list[Any]]:
    columns = [frame[name].tolist() for name in frame.columns]
    return [[_json_value(value) for value in row] for row in zip(*columns, strict=True)]


def _json_value(value: Any) -> Any:
    """A value for JSON: NaN becomes null, infinity a string."""
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else "inf" if value > 0 else "-inf"
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
