"""A chain of steps as a waterfall chart, from the base's density to the variant's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Count, Interval
from compresslab.report import words
from compresslab.report.charts.vega import LABEL, LETTERS, ROW, VARIANT, VERDICT_COLOURS, Spec, chart, layer, log_axis, unscaled


@dataclass(frozen=True)
class WaterfallStep:
    """One step of a chain.

    Attributes:
        label: the step. variant: its result. before, after: density, `None` if unknown. ratio: r with its interval. verdict: of r.
        note: r by the count of N that the step itself changed, if the chart counts N otherwise.
    """

    label: str
    variant: str
    before: float | None
    after: float | None
    ratio: Interval | None
    verdict: str
    note: str = ""


def format_factor(ratio: Interval | None) -> str:
    """A step's factor as text, with the signs of a bound and of an extrapolation."""
    if ratio is None:
        return "no density"
    return f"{ratio.bound} {words.times(ratio.value)}".strip() + ("†" if ratio.extrapolated else "")


def waterfall(steps: Sequence[WaterfallStep], title: str, start: str, domain: tuple[float, float], count: Count = "params") -> Spec:
    """Bars from density to density on a log axis, one per step, below the density of `start`, each with its factor.

    All densities of one chart are by the same `count` of N. A factor is r of its step, over the tasks that its two models share, so the
    factors multiply to the density at the end only where all models of the chain have the same tasks.
    """
    low, high = domain
    begin = steps[0].before
    rows: list[Spec] = [
        {
            "row": row,
            "top": row - 0.3,
            "bottom": row + 0.3,
            "label": words.truncate(step.label, LETTERS),
            "variant": step.variant,
            "before": step.before,
            "after": step.after,
            "verdict": step.verdict or "inconclusive",
            "text": f"{words.SYMBOLS.get(step.verdict, '')} {format_factor(step.ratio)}{step.note and f' ({step.note})'}",
            # Extrapolated ratios are hollow.
            "fill": 0.0 if step.ratio is not None and step.ratio.extrapolated else 0.85,
            "at": max((value for value in (step.before, step.after) if value is not None), default=low),
            "next": row + 1,
        }
        for row, step in enumerate(steps, start=1)
    ]
    drawn = [row for row in rows if row["before"] is not None and row["after"] is not None]
    last = len(steps) + 1
    ends: list[Spec] = [{"row": 0, "label": start, "after": begin, "variant": start, "next": 1}]
    if steps[-1].after is not None:
        ends.append({"row": last, "label": f"= {title}", "after": steps[-1].after, "variant": title, "next": last})
    lane = {"scale": {"domain": [last + 0.6, -0.6], "nice": False}, "axis": None}
    across = {
        "type": "quantitative",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "title": f"density {words.COUNTS[count]}",
    }
    x = {**across, "axis": log_axis(low, high)}
    colour = {"field": "verdict", "type": "nominal", "scale": VERDICT_COLOURS, "legend": None}
    links = [row for row in [*ends[:1], *drawn] if row["after"] is not None]
    layers: list[Spec] = [
        {
            "data": {"values": links},
            **layer(
                "rule",
                {"x": {**x, "field": "after"}, "y": {"field": "row", "type": "quantitative", **lane}, "y2": {"field": "next"}},
                color="var(--muted)",
                strokeDash=[2, 2],
            ),
        },
        {
            "data": {"values": drawn},
            **layer(
                "rect",
                {
                    **VARIANT,
                    "x": {**x, "field": "before"},
                    "x2": {"field": "after"},
                    "y": {"field": "top", "type": "quantitative", **lane},
                    "y2": {"field": "bottom"},
                    "color": colour,
                    "stroke": colour,
                    "fillOpacity": unscaled("fill", "quantitative"),
                },
                strokeWidth=1.2,
                opacity=1,
            ),
        },
        {
            "data": {"values": rows},
            **layer(
                "text",
                {
                    **VARIANT,
                    "x": {**x, "field": "at"},
                    "y": {"field": "row", "type": "quantitative", **lane},
                    "text": {"field": "text"},
                    "color": colour,
                },
                align="left",
                dx=5,
                fontSize=11,
            ),
        },
        {
            "data": {"values": [end for end in ends if end["after"] is not None]},
            **layer(
                "point",
                {**VARIANT, "x": {**x, "field": "after"}, "y": {"field": "row", "type": "quantitative", **lane}},
                filled=True,
                size=64,
                color="var(--accent)",
                opacity=1,
            ),
        },
        {
            "data": {"values": [{**row, "ink": "var(--ink)"} for row in [*ends, *rows]]},
            **layer(
                "text",
                {
                    "x": {"value": -8},
                    "y": {"field": "row", "type": "quantitative", **lane},
                    "text": {"field": "label"},
                    "color": unscaled("ink", "nominal"),
                },
                align="right",
                limit=LABEL,
                fontSize=11,
            ),
        },
    ]
    return chart(words.truncate(title, 40), 218, (last + 1) * ROW, {"layer": layers})
