"""The report's charts: Vega-Lite specifications, turned into static SVG that takes its colours from the page (light, dark, print).

The specifications are plain dicts: building the same charts through altair's checked objects took 2 s of a 2.5 s page.
A chart never depends on colour alone: a verdict also has its own shape, and an extrapolated value is drawn hollow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

from compresslab.records import Interval
from compresslab.report import words

FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
MOODS = ("raised", "lowered", "inconclusive")

_SHAPES = {"raised": "triangle-up", "lowered": "triangle-down", "inconclusive": "diamond"}
Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

Pixel = tuple[float, float]
"""A place inside a plot, in pixels from its upper left corner."""

_CONFIG: Spec = {
    "background": None,
    "aria": False,  # the figure's own label speaks for the chart; a label for each mark would drown a screen reader
    "font": FONT,
    "padding": 4,
    "view": {"stroke": "var(--line)"},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelOverlap": True,
    },
    "title": {"color": "var(--ink)", "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10},
    "legend": {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 11, "titleFontSize": 11},
    "text": {"color": "var(--ink)"},
}
_MOOD_COLOURS = {"domain": list(MOODS), "range": [f"var(--{mood})" for mood in MOODS]}
_ROW = 22
_LABEL = 132


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot: a value with its interval, and which way it points (`mood`, a verdict)."""

    label: str
    interval: Interval
    mood: str
    faint: bool = False


@dataclass(frozen=True)
class Dot:
    """One variant in a scatter plot; `parent` is the name of the dot that the arrow comes from."""

    name: str
    parent: str
    x: float
    y: float
    mood: str
    faint: bool = False


class Drawer:
    """Draws the charts of one page; it numbers them, so that no two share an id."""

    def __init__(self) -> None:
        self._drawn = 0

    def svg(self, chart: Spec, label: str) -> str:
        """A chart as an SVG element for the page, with `label` for those who do not see it."""
        self._drawn += 1
        text: str = vl_convert.vegalite_to_svg({**chart, "config": _CONFIG})
        text = re.sub(r'\b(id="|url\(#)', rf"\1c{self._drawn}-", text)
        text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1)
        return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1)


def moody(interval: Interval, neutral: float, *, lower_is_better: bool = False) -> str:
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
            "value": _clamp(bar.interval.value, low, high),
            "low": _clamp(bar.interval.low, low, high),
            "high": _clamp(bar.interval.high, low, high),
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
    ticks = _axis(low, high) if log else {"tickCount": 5}
    across = {"field": "value", "type": "quantitative", "scale": scale, "title": axis, "axis": ticks}
    colour = {"field": "mood", "type": "nominal", "scale": _MOOD_COLOURS, "legend": None}
    shape = {"field": "mood", "type": "nominal", "scale": {"domain": list(MOODS), "range": list(_SHAPES.values())}, "legend": None}
    lane = {"y": {"field": "row", "type": "ordinal", "axis": None}}
    shared = {**lane, "opacity": _own("opacity", "quantitative")}
    layers = [
        _layer("rule", {**shared, "x": {**across, "field": "low"}, "x2": {"field": "high"}, "color": colour}, strokeWidth=2),
        _layer(
            "point",
            {**shared, "x": across, "color": colour, "shape": shape, "fill": _own("fill", "nominal")},
            size=64,
            strokeWidth=1.6,
        ),
        _layer("text", {**shared, "x": across, "text": {"field": "bound"}, "color": colour}, dx=-11, fontSize=9),
        _layer(
            "text",
            {**lane, "x": {"value": -8}, "text": {"field": "label"}, "color": _own("ink", "nominal")},
            align="right",
            limit=_LABEL,
            fontSize=11,
        ),
    ]
    neutral: Spec = {
        "data": {"values": [{"at": 1 if log else 0}]},
        **_layer("rule", {"x": {"field": "at", "type": "quantitative"}}, color="var(--ink)", strokeWidth=1),
    }
    return _chart(title, 218, max(1, len(rows)) * _ROW, {"data": {"values": rows}, "layer": [neutral, *layers]})


def scatter(dots: Sequence[Dot], title: str, x_title: str, y_title: str, form: Callable[[float], str]) -> Spec:
    """Quality (bits-per-byte, better upwards) against a log axis of size or time, with an arrow from each parent to its child."""
    width, height = 330, 250
    x_low, x_high = log_domain([dot.x for dot in dots])
    y_low, y_high = _padded(min(dot.y for dot in dots), max(dot.y for dot in dots))
    span = math.log(x_high / x_low)
    pixels = {dot.name: (math.log(dot.x / x_low) / span * width, (dot.y - y_low) / (y_high - y_low) * height) for dot in dots}
    links = [(pixels[dot.parent], pixels[dot.name]) for dot in dots if dot.parent in pixels]
    labels = _place_labels(dots, pixels, links, width, height)

    def back(x: float, y: float) -> Pixel:
        return x_low * math.exp(x / width * span), y_low + y / height * (y_high - y_low)

    # Arrow ends and labels are placed in pixels and carried back to data values, so that every mark shares one scale.
    shown = [
        {
            "x": dot.x,
            "y": dot.y,
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
            arrows.append({"x": x, "y": y, "x2": x2, "y2": y2, "angle": arrow[2]})
    across = {"type": "log", "domain": [x_low, x_high], "nice": False}
    down = {"domain": [y_high, y_low], "nice": False, "zero": False}  # less is better, and better is up
    moods, colours = ["base", *MOODS], ["var(--accent)", *(f"var(--{mood})" for mood in MOODS)]

    def place(x: str, y: str) -> Spec:
        return {
            "x": {"field": x, "type": "quantitative", "scale": across, "title": x_title, "axis": _axis(x_low, x_high, form)},
            "y": {"field": y, "type": "quantitative", "scale": down, "title": y_title, "axis": {"tickCount": 6}},
        }

    edges: Spec = {
        "data": {"values": arrows},
        "layer": [
            _layer("rule", {**place("x", "y"), "x2": {"field": "x2"}, "y2": {"field": "y2"}}, color="var(--muted)", opacity=0.75),
            _layer(
                "point",
                {**place("x2", "y2"), "angle": _own("angle", "quantitative")},
                shape="triangle-up",
                filled=True,
                size=42,
                color="var(--muted)",
                opacity=1,
            ),
        ],
    }
    shape = {"field": "mood", "type": "nominal", "scale": {"domain": moods, "range": ["circle", *_SHAPES.values()]}, "legend": None}
    colour = {"field": "mood", "type": "nominal", "scale": {"domain": moods, "range": colours}, "legend": None}
    marks: Spec = {
        "data": {"values": shown},
        "layer": [
            _layer(
                "point",
                {**place("x", "y"), "size": _own("size", "quantitative"), "shape": shape, "color": colour},
                filled=True,
                opacity=1,
            ),
            _layer(
                "text",
                {**place("lx", "ly"), "text": {"field": "label"}, "color": _own("ink", "nominal")},
                align="left",
                baseline="middle",
                fontSize=11,
            ),
        ],
    }
    return _chart(title, width, height, {"layer": [edges, marks]})


def stacked(rows: Sequence[dict[str, Any]], title: str, axis: str) -> Spec:
    """Stacked bars of `value` by `part`, one bar a `label`, in the order given; a single part needs no legend."""
    order = list(dict.fromkeys(row["label"] for row in rows))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    values = [{"row": order.index(row["label"]), "part": row["part"], "value": row["value"]} for row in rows]
    names = [{"row": row, "label": words.clip(label, 60)} for row, label in enumerate(order)]
    colours = [f"var(--part-{index % 4})" for index in range(len(parts))]
    scale = {"domain": parts, "range": colours}
    lane = {"field": "row", "type": "ordinal", "axis": None}
    legend = {"orient": "top", "title": None} if len(parts) > 1 else None
    bars: Spec = {
        "data": {"values": values},
        **_layer(
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
        **_layer("text", {"x": {"value": -8}, "y": lane, "text": {"field": "label"}}, align="right", limit=_LABEL, fontSize=11),
    }
    return _chart(title, 218, max(1, len(order)) * _ROW, {"layer": [bars, labels]})


def log_domain(values: Sequence[float], *, around: float | None = None, reach: float = 1.0) -> tuple[float, float]:
    """A log axis's ends: the positive finite values (and `around`) with a margin; wider than a factor `reach` each way if asked."""
    fit = [value for value in [*values, *([around] if around else [])] if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(fit), max(fit)
    pad = max((high / low) ** 0.08, 1.12)
    low, high = low / pad, high * pad
    if around:
        low, high = min(low, around / reach), max(high, around * reach)
    return low, high


def interval_domain(intervals: Sequence[Interval], *, log: bool) -> tuple[float, float]:
    """An axis for intervals. An end that runs far beyond all values is cut, so that one wide interval does not flatten the rest."""
    if log:
        values = [one.value for one in intervals if _drawable(one, log=True)] or [1.0]
        ends = [end for one in intervals for end in (one.low, one.high) if min(values) / 8 <= end <= max(values) * 8]
        return log_domain([*values, *ends], around=1.0, reach=1.25)
    values = [one.value for one in intervals if math.isfinite(one.value)] or [0.0]
    reach = 4 * max(max(abs(value) for value in values), 1e-3)
    ends = [end for one in intervals for end in (one.low, one.high) if abs(end) <= reach]
    return _padded(min([0.0, *values, *ends]), max([0.0, *values, *ends]))


def _layer(mark: str, encoding: Spec, **style: Any) -> Spec:
    return {"mark": {"type": mark, **style}, "encoding": encoding}


def _own(name: str, kind: str) -> Spec:
    """A channel whose values are used as they stand: CSS colours, pixels, degrees."""
    return {"field": name, "type": kind, "scale": None, "legend": None}


def _chart(title: str, width: int, height: int, body: Spec) -> Spec:
    schema = "https://vega.github.io/schema/vega-lite/v6.json"  # a name, never fetched
    return {"$schema": schema, "title": title, "width": width, "height": height, **body, "resolve": {"scale": {"color": "independent"}}}


def _axis(low: float, high: float, form: Callable[[float], str] = words.short) -> Spec:
    """A log axis with ticks at round figures; the labels are written here, as vega's own would mix units."""
    ticks = _round_ticks(low, high)
    # In a label expression datum.index runs from 0 to 1 over the ticks.
    steps = max(1, len(ticks) - 1)
    labels = " : ".join(f"round(datum.index * {steps}) == {place} ? '{form(tick)}'" for place, tick in enumerate(ticks))
    return {"values": ticks, "labelExpr": f"{labels} : ''"}


def _round_ticks(low: float, high: float) -> list[float]:
    """About five round figures inside a log range."""
    fine = (tuple(step / 100 for step in range(100, 1000, width)) for width in (50, 20, 10, 5, 2, 1))
    for figures in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), *fine):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [figure * 10.0**power for power in powers for figure in figures if low <= figure * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks[:: max(1, math.ceil(len(ticks) / 7))]
    return [low, high]


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.1 * (high - low) or max(0.05 * abs(high), 0.01)
    return low - margin, high + margin


def _clamp(value: float, low: float, high: float) -> float:
    return high if math.isnan(value) else min(max(value, low), high)


def _drawable(interval: Interval, log: bool) -> bool:
    return math.isfinite(interval.value) and (interval.value > 0 or not log)


def _arrow(start: Pixel, end: Pixel) -> tuple[Pixel, Pixel, float] | None:
    """Both ends of a line that stops short of the marks, and the angle of its head. `None` where the marks touch."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length < 22:
        return None
    ux, uy = dx / length, dy / length
    tail, head = (start[0] + 7 * ux, start[1] + 7 * uy), (end[0] - 10 * ux, end[1] - 10 * uy)
    return tail, head, math.degrees(math.atan2(dy, dx)) + 90


def _place_labels(
    dots: Sequence[Dot], pixels: dict[str, Pixel], links: Sequence[tuple[Pixel, Pixel]], width: float, height: float
) -> dict[str, tuple[str, float, float]]:
    """Give each label a free place around its mark, off the arrows if it can be; what fits nowhere is left out (the tables name all)."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels.values()]
    lines = []
    for (x, y), (x2, y2) in links:
        steps = max(1, int(math.hypot(x2 - x, y2 - y) / 7))
        lines += [(x + (x2 - x) * step / steps, y + (y2 - y) * step / steps) for step in range(steps)]
    placed: dict[str, tuple[str, float, float]] = {}
    for dot in sorted(dots, key=lambda one: one.faint):
        x, y = pixels[dot.name]
        text = words.clip(dot.name, 24)
        wide = 5.9 * len(text)
        sides = [(x + 9, y), (x - 9 - wide, y), (x + 6, y - 12), (x + 6, y + 12), (x - 6 - wide, y - 12), (x - 6 - wide, y + 12)]
        sides += [(x - wide / 2, y - 15), (x - wide / 2, y + 15)]
        boxes = [(left, middle - 6, left + wide, middle + 6) for left, middle in sides]
        free = [box for box in boxes if _inside(box, width, height) and not any(_overlap(box, other) for other in taken)]
        placed[dot.name] = ("", x, y)
        if free:
            box = min(free, key=lambda one: sum(one[0] < px < one[2] and one[1] < py < one[3] for px, py in lines))
            taken.append(box)
            placed[dot.name] = (text, box[0], (box[1] + box[3]) / 2)
    return placed


def _inside(box: tuple[float, float, float, float], width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
