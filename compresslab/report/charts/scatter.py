"""Quality against size or time: every variant, the arrows from parents to children, and the frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compresslab.report.charts.labels import Pixel, place_labels
from compresslab.report.charts.vega import MOODS, SHAPES, VARIANT, Spec, chart, layer, log_axis, log_domain, own, padded


@dataclass(frozen=True)
class Dot:
    """One variant in a scatter plot; `parent` is the name of the dot that the arrow comes from, `error` half of y's 95% interval."""

    name: str
    parent: str
    x: float
    y: float
    error: float
    mood: str
    faint: bool = False


def scatter(dots: Sequence[Dot], title: str, x_title: str, y_title: str, form: Callable[[float], str]) -> Spec:
    """Quality (bits-per-byte, better upwards) against a log axis of size or time, with an arrow from each parent to its child.

    The line is the frontier: no variant is both smaller (or faster) and better than those on it.
    """
    width, height = 330, 250
    x_low, x_high = log_domain([dot.x for dot in dots])
    y_low, y_high = padded(min(dot.y - dot.error for dot in dots), max(dot.y + dot.error for dot in dots))
    span = math.log(x_high / x_low)
    pixels = {dot.name: (math.log(dot.x / x_low) / span * width, (dot.y - y_low) / (y_high - y_low) * height) for dot in dots}
    links = [(pixels[dot.parent], pixels[dot.name]) for dot in dots if dot.parent in pixels]
    labels = place_labels([(dot.name, dot.faint) for dot in dots], pixels, links, width, height)

    def back(x: float, y: float) -> Pixel:
        return x_low * math.exp(x / width * span), y_low + y / height * (y_high - y_low)

    # Arrow ends and labels are placed in pixels and carried back to data values, so that every mark shares one scale.
    shown = [
        {
            "x": dot.x,
            "y": dot.y,
            "low": dot.y - dot.error,
            "high": dot.y + dot.error,
            "variant": dot.name,
            "mood": dot.mood,
            "label": labels[dot.name][0],
            **dict(zip(("lx", "ly"), back(*labels[dot.name][1:]), strict=True)),
            "size": 34 if dot.faint else 78,
            "ink": "var(--muted)" if dot.faint else "var(--ink)",
        }
        for dot in dots
    ]
    arrows = []
    for dot in dots:
        if dot.parent in pixels and (arrow := _arrow(pixels[dot.parent], pixels[dot.name])):
            (x, y), (x2, y2) = back(*arrow[0]), back(*arrow[1])
            arrows.append({"x": x, "y": y, "x2": x2, "y2": y2, "angle": arrow[2], "variant": dot.name})
    across = {"type": "log", "domain": [x_low, x_high], "nice": False}
    down = {"domain": [y_high, y_low], "nice": False, "zero": False}  # less is better, and better is up
    moods, colours = ["base", *MOODS], ["var(--accent)", *(f"var(--{mood})" for mood in MOODS)]

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
                {**VARIANT, **place("x2", "y2"), "angle": own("angle", "quantitative")},
                shape="triangle-up",
                filled=True,
                size=42,
                color="var(--muted)",
                opacity=1,
            ),
        ],
    }
    shape = {"field": "mood", "type": "nominal", "scale": {"domain": moods, "range": ["circle", *SHAPES.values()]}, "legend": None}
    colour = {"field": "mood", "type": "nominal", "scale": {"domain": moods, "range": colours}, "legend": None}
    edge: Spec = {
        "data": {"values": [{"x": dot.x, "y": dot.y} for dot in frontier(dots)]},
        **layer("line", place("x", "y"), interpolate="step-after", color="var(--accent)", strokeWidth=1.5, opacity=0.7),
    }
    marks: Spec = {
        "data": {"values": shown},
        "layer": [
            layer("rule", {**VARIANT, **place("x", "low"), "y2": {"field": "high"}, "color": colour}, opacity=0.45),
            layer(
                "point",
                {**VARIANT, **place("x", "y"), "size": own("size", "quantitative"), "shape": shape, "color": colour},
                filled=True,
                opacity=1,
            ),
            layer(
                "text",
                {**VARIANT, **place("lx", "ly"), "text": {"field": "label"}, "color": own("ink", "nominal")},
                align="left",
                baseline="middle",
                fontSize=11,
            ),
        ],
    }
    return chart(title, width, height, {"layer": [edge, edges, marks]})


def frontier(dots: Sequence[Dot]) -> list[Dot]:
    """The dots that no other beats on both axes (smaller x, smaller y), by rising x."""
    best: list[Dot] = []
    for dot in sorted(dots, key=lambda one: (one.x, one.y)):
        if not best or dot.y < best[-1].y:
            best.append(dot)
    return best


def _arrow(start: Pixel, end: Pixel) -> tuple[Pixel, Pixel, float] | None:
    """Both ends of a line that stops short of the marks, and the angle of its head. `None` where the marks touch."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length < 22:
        return None
    ux, uy = dx / length, dy / length
    tail, head = (start[0] + 7 * ux, start[1] + 7 * uy), (end[0] - 10 * ux, end[1] - 10 * uy)
    return tail, head, math.degrees(math.atan2(dy, dx)) + 90
