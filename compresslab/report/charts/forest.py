"""Values with intervals, one a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Interval
from compresslab.report import words
from compresslab.report.charts.vega import (
    LABEL,
    MOOD_COLOURS,
    MOODS,
    ROW,
    SHAPES,
    VARIANT,
    Spec,
    chart,
    clamp,
    layer,
    log_axis,
    log_domain,
    own,
    padded,
)


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot: a value with its interval, and which way it points (`mood`, a verdict)."""

    label: str
    interval: Interval
    mood: str
    faint: bool = False


def verdict_class(interval: Interval, neutral: float, *, lower_is_better: bool = False) -> str:
    """The verdict that an interval carries by itself: which side of `neutral` it lies on."""
    if interval.low > neutral:
        return "lowered" if lower_is_better else "raised"
    if interval.high < neutral:
        return "raised" if lower_is_better else "lowered"
    return "inconclusive"


def forest(bars: Sequence[Bar], title: str, axis: str, *, log: bool, domain: tuple[float, float]) -> Spec:
    """Values with 95% intervals, one a row, and a line where nothing changed (1 on a log axis, 0 on a linear one)."""
    low, high = domain
    rows = [
        {
            "row": row,
            "label": words.clip(bar.label, 60),
            "variant": bar.label,
            "value": clamp(bar.interval.value, low, high),
            "low": clamp(bar.interval.low, low, high),
            "high": clamp(bar.interval.high, low, high),
            "mood": bar.mood,
            "fill": "var(--card)" if bar.interval.extrapolated else f"var(--{bar.mood})",
            "bound": {"<": "◀", ">": "▶"}.get(bar.interval.bound, ""),
            "ink": "var(--muted)" if bar.faint else "var(--ink)",
            "opacity": 0.55 if bar.faint else 1,
        }
        for row, bar in enumerate(bars)
        if _drawable(bar.interval, log)
    ]
    scale = {"type": "log" if log else "linear", "domain": [low, high], "nice": False}
    ticks = log_axis(low, high) if log else {"tickCount": 5}
    across = {"field": "value", "type": "quantitative", "scale": scale, "title": axis, "axis": ticks}
    colour = {"field": "mood", "type": "nominal", "scale": MOOD_COLOURS, "legend": None}
    shape = {"field": "mood", "type": "nominal", "scale": {"domain": list(MOODS), "range": list(SHAPES.values())}, "legend": None}
    lane = {**VARIANT, "y": {"field": "row", "type": "ordinal", "axis": None}}
    shared = {**lane, "opacity": own("opacity", "quantitative")}
    layers = [
        layer("rule", {**shared, "x": {**across, "field": "low"}, "x2": {"field": "high"}, "color": colour}, strokeWidth=2),
        layer(
            "point",
            {**shared, "x": across, "color": colour, "shape": shape, "fill": own("fill", "nominal")},
            size=64,
            strokeWidth=1.6,
        ),
        layer("text", {**shared, "x": across, "text": {"field": "bound"}, "color": colour}, dx=-11, fontSize=9),
        layer(
            "text",
            {**lane, "x": {"value": -8}, "text": {"field": "label"}, "color": own("ink", "nominal")},
            align="right",
            limit=LABEL,
            fontSize=11,
        ),
    ]
    neutral: Spec = {
        "data": {"values": [{"at": 1 if log else 0}]},
        **layer("rule", {"x": {"field": "at", "type": "quantitative"}}, color="var(--ink)", strokeWidth=1),
    }
    return chart(title, 218, max(1, len(rows)) * ROW, {"data": {"values": rows}, "layer": [neutral, *layers]})


def interval_domain(intervals: Sequence[Interval], *, log: bool) -> tuple[float, float]:
    """An axis for intervals. An end that runs far beyond all values is cut, so that one wide interval does not flatten the rest."""
    if log:
        values = [one.value for one in intervals if _drawable(one, log=True)] or [1.0]
        ends = [end for one in intervals for end in (one.low, one.high) if min(values) / 8 <= end <= max(values) * 8]
        return log_domain([*values, *ends], around=1.0, reach=1.25)
    values = [one.value for one in intervals if math.isfinite(one.value)] or [0.0]
    reach = 4 * max(max(abs(value) for value in values), 1e-3)
    ends = [end for one in intervals for end in (one.low, one.high) if abs(end) <= reach]
    return padded(min([0.0, *values, *ends]), max([0.0, *values, *ends]))


def _drawable(interval: Interval, log: bool) -> bool:
    return math.isfinite(interval.value) and (interval.value > 0 or not log)
