"""Forest plots: values with intervals, one per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Interval
from compresslab.report import words
from compresslab.report.charts.vega import (
    LABEL,
    LETTERS,
    ROW,
    SHAPES,
    VARIANT,
    VERDICT_COLOURS,
    VERDICTS,
    Spec,
    chart,
    clamp,
    layer,
    log_axis,
    log_domain,
    padded,
    unscaled,
)


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot: a value with its interval and verdict."""

    label: str
    interval: Interval
    verdict: str
    faint: bool = False


def verdict_class(interval: Interval, neutral: float, *, lower_is_better: bool = False) -> str:
    """The verdict of an interval alone, by the side of `neutral` on which it lies."""
    if interval.low > neutral:
        return "lowered" if lower_is_better else "raised"
    if interval.high < neutral:
        return "raised" if lower_is_better else "lowered"
    return "inconclusive"


def forest(bars: Sequence[Bar], title: str, axis: str, *, log: bool, domain: tuple[float, float]) -> Spec:
    """Values with 95% intervals, one per row, and a line at no change (1 on a log axis, 0 on a linear one)."""
    low, high = domain
    rows = [
        {
            "row": row,
            "label": words.truncate(bar.label, LETTERS),
            "variant": bar.label,
            "value": clamp(bar.interval.value, low, high),
            "low": clamp(bar.interval.low, low, high),
            "high": clamp(bar.interval.high, low, high),
            "verdict": bar.verdict,
            "fill": "var(--card)" if bar.interval.extrapolated else f"var(--{bar.verdict})",
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
    colour = {"field": "verdict", "type": "nominal", "scale": VERDICT_COLOURS, "legend": None}
    shape = {"field": "verdict", "type": "nominal", "scale": {"domain": list(VERDICTS), "range": list(SHAPES.values())}, "legend": None}
    lane = {**VARIANT, "y": {"field": "row", "type": "ordinal", "axis": None}}
    shared = {**lane, "opacity": unscaled("opacity", "quantitative")}
    layers = [
        layer("rule", {**shared, "x": {**across, "field": "low"}, "x2": {"field": "high"}, "color": colour}, strokeWidth=2),
        layer(
            "point",
            {**shared, "x": across, "color": colour, "shape": shape, "fill": unscaled("fill", "nominal")},
            size=64,
            strokeWidth=1.6,
        ),
        layer("text", {**shared, "x": across, "text": {"field": "bound"}, "color": colour}, dx=-11, fontSize=9),
        layer(
            "text",
            {**lane, "x": {"value": -8}, "text": {"field": "label"}, "color": unscaled("ink", "nominal")},
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
    """The domain of an axis for intervals. Ends far beyond all values are cut, so that one wide interval does not compress the others."""
    if log:
        values = [interval.value for interval in intervals if _drawable(interval, log=True)] or [1.0]
        ends = [end for interval in intervals for end in (interval.low, interval.high) if min(values) / 8 <= end <= max(values) * 8]
        return log_domain([*values, *ends], around=1.0, reach=1.25)
    values = [interval.value for interval in intervals if math.isfinite(interval.value)] or [0.0]
    limit = 4 * max(max(abs(value) for value in values), 1e-3)
    ends = [end for interval in intervals for end in (interval.low, interval.high) if abs(end) <= limit]
    return padded(min([0.0, *values, *ends]), max([0.0, *values, *ends]))


def _drawable(interval: Interval, log: bool) -> bool:
    return math.isfinite(interval.value) and (interval.value > 0 or not log)
