"""Stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compresslab.report import words
from compresslab.report.charts.vega import LABEL, LETTERS, ROW, Spec, chart, layer


def stacked(rows: Sequence[dict[str, Any]], title: str, axis: str) -> Spec:
    """Stacked bars of `value` by `part`, one bar per `label`, in the order of `rows`; a single part has no legend."""
    order = list(dict.fromkeys(row["label"] for row in rows))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    values = [{"row": order.index(row["label"]), "part": row["part"], "value": row["value"]} for row in rows]
    names = [{"row": row, "label": words.truncate(label, LETTERS)} for row, label in enumerate(order)]
    colours = [f"var(--part-{index % 4})" for index in range(len(parts))]
    scale = {"domain": parts, "range": colours}
    lane = {"field": "row", "type": "ordinal", "axis": None}
    legend = {"orient": "top", "title": None} if len(parts) > 1 else None
    bars: Spec = {
        "data": {"values": values},
        **layer(
            "bar",
            {
                "x": {"field": "value", "type": "quantitative", "title": axis, "axis": {"tickCount": 5}},
                "y": lane,
                "color": {"field": "part", "type": "nominal", "sort": parts, "scale": scale, "legend": legend},
            },
            height=12,
        ),
    }
    labels: Spec = {
        "data": {"values": names},
        **layer("text", {"x": {"value": -8}, "y": lane, "text": {"field": "label"}}, align="right", limit=LABEL, fontSize=11),
    }
    return chart(title, 218, max(1, len(order)) * ROW, {"layer": [bars, labels]})
