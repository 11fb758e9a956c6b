"""Quality against size or time: every variant, arrows from parents to children, and the frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compresslab.report.charts.labels import Pixel, place_labels
from compresslab.report.charts.vega import SHAPES, VARIANT, VERDICTS, Spec, chart, layer, log_axis, log_domain, padded, unscaled


@dataclass(frozen=True)
class ScatterPoint:
    """One variant in a scatter plot.

    `parent` is the name of the dot that the arrow comes from, `error` half of y's 95% interval.

    `x_ends`: the 95% interval of x; `None` where x is known.
    """

    name: str
    parent: str
    x: float
    y: float
    error: float
    verdict: str
    faint: bool = False
    x_ends: tuple[float, float] | None = None


def scatter(
    points: Sequence[ScatterPoint], title: str, x_title: str, y_title: str, form: Callable[[float], str], *, more_is_better: bool = False
) -> Spec:
    """Quality (bits per byte, or an accuracy of which more is better; better upwards) against a log axis of size or time, with an arrow
    from each parent to its child.

    The line is the frontier: no variant is both smaller (or faster) and better than a variant on it. It is drawn through the values;
    where the horizontal intervals of modelled time overlap, a variant beside the line may be on it.
    """
    width, height = 330, 250
    x_low, x_high = log_domain([x for point in points for x in (point.x, *(point.x_ends or ()))])
    y_low, y_high = padded(min(point.y - point.error for point in points), max(point.y + point.error for point in points))
    span = math.log(x_high / x_low)
    top, bottom = (y_high, y_low) if more_is_better else (y_low, y_high)
    pixels = {point.name: (math.log(point.x / x_low) / span * width, (point.y - top) / (bottom - top) * height) for point in points}
    links = [(pixels[point.parent], pixels[point.name]) for point in points if point.parent in pixels]
    labels = place_labels([(point.name, point.faint) for point in points], pixels, links, width, height)

    def back(x: float, y: float) -> Pixel:
        return x_low * math.exp(x / width * span), top + y / height * (bottom - top)

    # Arrow ends and labels are placed in pixels and converted to data values, so that all marks have one scale.
    shown = [
        {
            "x": point.x,
            "y": point.y,
            "low": point.y - point.error,
            "high": point.y + point.error,
            "left": point.x_ends[0] if point.x_ends else point.x,
            "right": point.x_ends[1] if point.x_ends else point.x,
            "variant": point.name,
            "verdict": point.verdict,
            "label": labels[point.name][0],
            **dict(zip(("lx", "ly"), back(*labels[point.name][1:]), strict=True)),
            "size": 34 if point.faint else 78,
            "ink": "var(--muted)" if point.faint else "var(--ink)",
        }
        for point in points
    ]
    arrows = []
    for point in points:
        if point.parent in pixels and (arrow := _arrow(pixels[point.parent], pixels[point.name])):
            (x, y), (x2, y2) = back(*arrow[0]), back(*arrow[1])
            arrows.append({"x": x, "y": y, "x2": x2, "y2": y2, "angle": arrow[2], "variant": point.name})
    across = {"type": "log", "domain": [x_low, x_high], "nice": False}
    down = {"domain": [bottom, top], "nice": False, "zero": False}  # better is at the top
    classes, colours = ["base", *VERDICTS], ["var(--accent)", *(f"var(--{verdict})" for verdict in VERDICTS)]

    def place(x: str, y: str) -> Spec:
        return {
            "x": {"field": x, "type": "quantitative", "scale": across, "title": x_title, "axis": log_axis(x_low, x_high, form)},
            "y": {"field": y, "type": "quantitative", "scale": down, "title": y_title, "axis": {"tickCount": 6}},
        }

    edges: Spec = {
        "data": {"values": arrows},
        "layer": [
            layer("rule", {**VARIANT, **place("x", "y"), "x2": {"field": "x2"}, "y2": {"field": "y2"}}, color="var(--muted)", opacity=0.75),
            layer(
                "point",
                {**VARIANT, **place("x2", "y2"), "angle": unscaled("angle", "quantitative")},
                shape="triangle-up",
                filled=True,
                size=42,
                color="var(--muted)",
                opacity=1,
            ),
        ],
    }
    shape = {"field": "verdict", "type": "nominal", "scale": {"domain": classes, "range": ["circle", *SHAPES.values()]}, "legend": None}
    colour = {"field": "verdict", "type": "nominal", "scale": {"domain": classes, "range": colours}, "legend": None}
    edge: Spec = {
        "data": {"values": [{"x": point.x, "y": point.y} for point in frontier(points, more_is_better=more_is_better)]},
        **layer("line", place("x", "y"), interpolate="step-after", color="var(--accent)", strokeWidth=1.5, opacity=0.7),
    }
    marks: Spec = {
        "data": {"values": shown},
        "layer": [
            layer("rule", {**VARIANT, **place("x", "low"), "y2": {"field": "high"}, "color": colour}, opacity=0.45),
            layer("rule", {**VARIANT, **place("left", "y"), "x2": {"field": "right"}, "color": colour}, opacity=0.45),
            layer(
                "point",
                {**VARIANT, **place("x", "y"), "size": unscaled("size", "quantitative"), "shape": shape, "color": colour},
                filled=True,
                opacity=1,
            ),
            layer(
                "text",
                {**VARIANT, **place("lx", "ly"), "text": {"field": "label"}, "color": unscaled("ink", "nominal")},
                align="left",
                baseline="middle",
                fontSize=11,
            ),
        ],
    }
    return chart(title, width, height, {"layer": [edge, edges, marks]})


def frontier(points: Sequence[ScatterPoint], *, more_is_better: bool = False) -> list[ScatterPoint]:
    """The dots that no other beats on both axes (smaller x, better y), by rising x."""
    sign = -1 if more_is_better else 1
    best: list[ScatterPoint] = []
    for point in sorted(points, key=lambda point: (point.x, sign * point.y)):
        if not best or sign * point.y < sign * best[-1].y:
            best.append(point)
    return best


def _arrow(start: Pixel, end: Pixel) -> tuple[Pixel, Pixel, float] | None:
    """Both ends of a line that stops before the marks, and the angle of its head in degrees. `None` if the marks are too close."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length < 22:
        return None
    ux, uy = dx / length, dy / length
    tail, head = (start[0] + 7 * ux, start[1] + 7 * uy), (end[0] - 10 * ux, end[1] - 10 * uy)
    return tail, head, math.degrees(math.atan2(dy, dx)) + 90
