"""Charts as separate SVG files: a reference's loss or score against parameters with its band, and the trend of densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compresslab.errors import RunFailed
from compresslab.records import Curve
from compresslab.report import words
from compresslab.report.charts.drawing import Drawing, NotDrawnError
from compresslab.report.charts.vega import Spec
from compresslab.report.overwriting import SVG_MARK

# A separate file cannot use the page's CSS colours.
INK, BAND, POINT = "#1f2937", "#93c5fd", "#b45309"


def reference_chart(curves: Sequence[Curve], title: str) -> Spec:
    """One panel per task, side by side; curves are dashed outside the fitted sizes."""
    return {
        "title": title,
        "config": {"axis": {"gridOpacity": 0.4}, "font": "Arial"},
        "columns": 3,
        "concat": [_panel(curve) for curve in curves],
    }


def to_svg(chart: Spec) -> str:
    """The chart as the content of an SVG file, with the mark by which a later command knows that it may be replaced.

    Raises:
        RunFailed: it cannot be drawn.
    """
    with Drawing() as drawing:
        try:
            return f"{drawing.svg(chart)}\n{SVG_MARK}\n"
        except NotDrawnError as error:
            raise RunFailed(f"the chart could not be drawn: {error}") from error


def _panel(curve: Curve) -> Spec:
    rows = [
        {"n": n, "m": m, "l": low, "h": high, "fitted": curve.fitted[0] * 0.999 <= n <= curve.fitted[1] * 1.001}
        for n, m, low, high in zip(curve.params, curve.middle, curve.low, curve.high, strict=True)
    ]
    ticks = [n for n in (1e7, 1e8, 1e9, 1e10, 1e11, 1e12) if curve.params[0] <= n <= curve.params[-1]]
    labels = " : ".join(f"datum.value == {tick} ? '{words.count(tick)}'" for tick in ticks) + " : ''"
    x = {
        "field": "n",
        "type": "quantitative",
        "scale": {"type": "log"},
        "title": "parameters",
        "axis": {"values": ticks, "labelExpr": labels},
    }
    y = {"type": "quantitative", "scale": {"zero": False}, "title": curve.unit}
    band: Spec = {
        "mark": {"type": "area", "opacity": 0.35, "color": BAND},
        "encoding": {"x": x, "y": {"field": "l", **y}, "y2": {"field": "h"}},
    }
    curve_line: Spec = {
        "mark": {"type": "line", "color": INK, "strokeDash": [3, 3], "strokeWidth": 1},
        "encoding": {"x": x, "y": {"field": "m", **y}},
    }
    inside: Spec = {**curve_line, "mark": {"type": "line", "color": INK, "strokeWidth": 2}, "transform": [{"filter": "datum.fitted"}]}
    points: Spec = {
        "data": {"values": [{"n": n, "v": value} for n, value in curve.points]},
        "mark": {"type": "point", "filled": True, "size": 28, "color": POINT},
        "encoding": {"x": x, "y": {"field": "v", **y}},
    }
    return {"title": curve.task, "width": 260, "height": 200, "data": {"values": rows}, "layer": [band, curve_line, inside, points]}


def trend_chart(points: Sequence[tuple[str, str, float, bool, bool]], lines: Mapping[str, Sequence[tuple[str, float]]], title: str) -> Spec:
    """Densities against release dates on a log axis, with the names of the frontier models and the fitted lines.

    Args:
        points: (model, ISO date, density, on the frontier, a bound).
        lines: (ISO date, density) of each line's ends, by the name of the fit.
    """
    rows = [{"model": model, "date": date, "density": density, "top": top, "bound": bound} for model, date, density, top, bound in points]
    x = {"field": "date", "type": "temporal", "title": "released"}
    y = {"field": "density", "type": "quantitative", "scale": {"type": "log"}, "title": "density"}
    top = [{"filter": "datum.top"}]
    return {
        "title": title,
        "config": {"axis": {"gridOpacity": 0.4}, "font": "Arial"},
        "width": 640,
        "height": 380,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "point", "color": INK, "opacity": 0.5},
                "transform": [{"filter": "!datum.top && !datum.bound"}],
                "encoding": {"x": x, "y": y},
            },
            {"mark": {"type": "point", "filled": True, "size": 60, "color": POINT}, "transform": top, "encoding": {"x": x, "y": y}},
            {
                "mark": {"type": "text", "align": "right", "dx": -7, "dy": -5, "fontSize": 10},
                "transform": top,
                "encoding": {"x": x, "y": y, "text": {"field": "model"}},
            },
            {
                "data": {
                    "values": [{"date": date, "density": density, "fit": fit} for fit, ends in lines.items() for date, density in ends]
                },
                "mark": {"type": "line"},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": {"field": "fit", "type": "nominal", "title": None},
                    "strokeDash": {"field": "fit", "type": "nominal", "title": None},
                },
            },
        ],
    }
