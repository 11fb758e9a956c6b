"""The ruler: the reference's curve on one task, every variant placed at its quality, its effective parameters read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Curve
from compresslab.report import words
from compresslab.report.charts.labels import place_labels
from compresslab.report.charts.vega import MOODS, SHAPES, VARIANT, Spec, chart, clamp, layer, log_axis, own, padded

WIDTH, HEIGHT = 330, 250
MARGIN = 1.4


@dataclass(frozen=True)
class Placed:
    """A variant on one task: its own parameters `n`, its value on the task, and the parameters `read` off the curve at that value."""

    name: str
    n: float
    value: float
    read: float
    extrapolated: bool
    mood: str
    faint: bool


def ruler(curve: Curve, placed: Sequence[Placed]) -> Spec:
    """A line from each variant's own size to the size read off the curve: its length is the density, on a log axis.

    Shaded: beyond the sizes that the reference was fitted on.
    """
    sizes = [size for one in placed for size in (one.n, one.read)]
    low = max(min([curve.fitted[0], *sizes]) / MARGIN, curve.params[0])
    high = min(max([curve.fitted[1], *sizes]) * MARGIN, curve.params[-1])
    inside = [place for place, n in enumerate(curve.params) if low <= n <= high]
    line = [{"n": curve.params[i], "m": curve.middle[i], "l": curve.low[i], "h": curve.high[i]} for i in inside]
    values = [one.value for one in placed] + [curve.middle[i] for i in inside]
    floor, ceiling = padded(min(values), max(values))
    better_up = curve.unit == "score"
    x = {
        "type": "quantitative",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "title": "parameters",
        "axis": log_axis(low, high, words.count),
    }
    scale = {"domain": [floor, ceiling] if better_up else [ceiling, floor], "nice": False, "zero": False}
    y = {"type": "quantitative", "scale": scale, "title": f"{curve.unit} (better ↑)", "axis": {"tickCount": 6}}
    moods = ["base", *MOODS]
    colour = {
        "field": "mood",
        "type": "nominal",
        "scale": {"domain": moods, "range": ["var(--accent)", *(f"var(--{mood})" for mood in MOODS)]},
        "legend": None,
    }
    shape = {"field": "mood", "type": "nominal", "scale": {"domain": moods, "range": ["circle", *SHAPES.values()]}, "legend": None}
    beyond = [{"from": low, "to": curve.fitted[0]}, {"from": curve.fitted[1], "to": high}]
    marks = _marks(placed, (low, high), (floor, ceiling), better_up)
    return chart(
        words.clip(curve.task, 40),
        WIDTH,
        HEIGHT,
        {
            "layer": [
                {
                    "data": {"values": [row for row in beyond if row["from"] < row["to"]]},
                    **layer("rect", {"x": {**x, "field": "from"}, "x2": {"field": "to"}}, color="var(--line)", opacity=0.45),
                },
                {
                    "data": {"values": line},
                    **layer(
                        "area",
                        {"x": {**x, "field": "n"}, "y": {**y, "field": "l"}, "y2": {"field": "h"}},
                        color="var(--accent)",
                        opacity=0.18,
                        clip=True,
                    ),
                },
                {
                    "data": {"values": line},
                    **layer(
                        "line", {"x": {**x, "field": "n"}, "y": {**y, "field": "m"}}, color="var(--accent)", strokeWidth=1.6, clip=True
                    ),
                },
                {
                    "data": {"values": [{"n": n, "m": value} for n, value in curve.points if low <= n <= high]},
                    **layer("point", {"x": {**x, "field": "n"}, "y": {**y, "field": "m"}}, shape="cross", size=30, color="var(--accent)"),
                },
                {
                    "data": {"values": marks},
                    "layer": [
                        layer(
                            "rule",
                            {**VARIANT, "x": {**x, "field": "n"}, "x2": {"field": "read"}, "y": {**y, "field": "value"}, "color": colour},
                            opacity=0.6,
                        ),
                        layer(
                            "point",
                            {**VARIANT, "x": {**x, "field": "n"}, "y": {**y, "field": "value"}, "color": colour},
                            shape="stroke",
                            angle=90,
                            size=70,
                            opacity=1,
                        ),
                        layer(
                            "point",
                            {
                                **VARIANT,
                                "x": {**x, "field": "read"},
                                "y": {**y, "field": "value"},
                                "color": colour,
                                "shape": shape,
                                "fill": own("fill", "nominal"),
                                "size": own("size", "quantitative"),
                            },
                            opacity=1,
                        ),
                        layer(
                            "text",
                            {
                                **VARIANT,
                                "x": {**x, "field": "lx"},
                                "y": {**y, "field": "ly"},
                                "text": {"field": "label"},
                                "color": own("ink", "nominal"),
                            },
                            align="left",
                            baseline="middle",
                            fontSize=11,
                        ),
                    ],
                },
            ]
        },
    )


def _marks(placed: Sequence[Placed], across: tuple[float, float], up: tuple[float, float], better_up: bool) -> list[Spec]:
    (low, high), (floor, ceiling) = across, up
    span = math.log(high / low)

    def height(value: float) -> float:
        share = (value - floor) / (ceiling - floor)
        return (1 - share if better_up else share) * HEIGHT

    pixels = {one.name: (math.log(clamp(one.read, low, high) / low) / span * WIDTH, height(one.value)) for one in placed}
    own_size = {one.name: (math.log(clamp(one.n, low, high) / low) / span * WIDTH, height(one.value)) for one in placed}
    labels = place_labels(
        [(one.name, one.faint) for one in placed], pixels, [(pixels[name], own_size[name]) for name in pixels], WIDTH, HEIGHT
    )
    marks = []
    for one in placed:
        text, left, middle = labels[one.name]
        share = middle / HEIGHT
        marks.append(
            {
                "variant": one.name,
                "n": clamp(one.n, low, high),
                "read": clamp(one.read, low, high),
                "value": one.value,
                "mood": one.mood,
                "fill": "var(--card)" if one.extrapolated else f"var(--{one.mood})" if one.mood != "base" else "var(--accent)",
                "size": 30 if one.faint else 64,
                "ink": "var(--muted)" if one.faint else "var(--ink)",
                "label": text,
                "lx": low * math.exp(left / WIDTH * span),
                "ly": floor + (1 - share if better_up else share) * (ceiling - floor),
            }
        )
    return marks
