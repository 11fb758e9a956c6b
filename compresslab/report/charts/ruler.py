"""The reference's curve on one task, with every variant at its quality and its effective parameters on the curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Curve
from compresslab.report import words
from compresslab.report.charts.labels import place_labels
from compresslab.report.charts.vega import SHAPES, VARIANT, VERDICTS, Spec, chart, clamp, layer, log_axis, padded, unscaled

WIDTH, HEIGHT = 330, 250
MARGIN = 1.4


@dataclass(frozen=True)
class CurvePoint:
    """A variant on one task: its parameters `n`, its value, and the `effective` parameters at which the curve has that value."""

    name: str
    n: float
    value: float
    effective: float
    extrapolated: bool
    verdict: str
    faint: bool


def ruler(curve: Curve, points: Sequence[CurvePoint]) -> Spec:
    """A line from each variant's own size to its effective size on the curve. On the log axis its length is the density.

    The range outside the fitted sizes of the reference is shaded.
    """
    sizes = [size for point in points for size in (point.n, point.effective)]
    low = max(min([curve.fitted[0], *sizes]) / MARGIN, curve.params[0])
    high = min(max([curve.fitted[1], *sizes]) * MARGIN, curve.params[-1])
    inside = [place for place, n in enumerate(curve.params) if low <= n <= high]
    line = [{"n": curve.params[i], "m": curve.middle[i], "l": curve.low[i], "h": curve.high[i]} for i in inside]
    values = [point.value for point in points] + [curve.middle[i] for i in inside]
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
    classes = ["base", *VERDICTS]
    colour = {
        "field": "verdict",
        "type": "nominal",
        "scale": {"domain": classes, "range": ["var(--accent)", *(f"var(--{verdict})" for verdict in VERDICTS)]},
        "legend": None,
    }
    shape = {"field": "verdict", "type": "nominal", "scale": {"domain": classes, "range": ["circle", *SHAPES.values()]}, "legend": None}
    outside = [{"from": low, "to": curve.fitted[0]}, {"from": curve.fitted[1], "to": high}]
    marks = _marks(points, (low, high), (floor, ceiling), better_up)
    return chart(
        words.truncate(curve.task, 40),
        WIDTH,
        HEIGHT,
        {
            "layer": [
                {
                    "data": {"values": [row for row in outside if row["from"] < row["to"]]},
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
                                "fill": unscaled("fill", "nominal"),
                                "size": unscaled("size", "quantitative"),
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
                                "color": unscaled("ink", "nominal"),
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


def _marks(points: Sequence[CurvePoint], x_range: tuple[float, float], y_range: tuple[float, float], better_up: bool) -> list[Spec]:
    (low, high), (floor, ceiling) = x_range, y_range
    span = math.log(high / low)

    def height(value: float) -> float:
        share = (value - floor) / (ceiling - floor)
        return (1 - share if better_up else share) * HEIGHT

    pixels = {point.name: (math.log(clamp(point.effective, low, high) / low) / span * WIDTH, height(point.value)) for point in points}
    own_size = {point.name: (math.log(clamp(point.n, low, high) / low) / span * WIDTH, height(point.value)) for point in points}
    labels = place_labels(
        [(point.name, point.faint) for point in points], pixels, [(pixels[name], own_size[name]) for name in pixels], WIDTH, HEIGHT
    )
    marks = []
    for point in points:
        text, left, middle = labels[point.name]
        share = middle / HEIGHT
        marks.append(
            {
                "variant": point.name,
                "n": clamp(point.n, low, high),
                "read": clamp(point.effective, low, high),
                "value": point.value,
                "verdict": point.verdict,
                "fill": "var(--card)" if point.extrapolated else f"var(--{point.verdict})" if point.verdict != "base" else "var(--accent)",
                "size": 30 if point.faint else 64,
                "ink": "var(--muted)" if point.faint else "var(--ink)",
                "label": text,
                "lx": low * math.exp(left / WIDTH * span),
                "ly": floor + (1 - share if better_up else share) * (ceiling - floor),
            }
        )
    return marks
