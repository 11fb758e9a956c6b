"""A chain of steps as a waterfall: from the base's density to the variant's, and which step cost or gained what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compresslab.records import Interval
from compresslab.report import words
from compresslab.report.charts.vega import LABEL, MOOD_COLOURS, ROW, VARIANT, Spec, chart, layer, log_axis, own


@dataclass(frozen=True)
class Fall:
    """One step of a chain.

    Attributes:
        label: the step. variant: what it made. before, after: density, `None` where there is none. ratio: with its interval, and `mood` its
            verdict.
    """

    label: str
    variant: str
    before: float | None
    after: float | None
    ratio: Interval | None
    mood: str


def told(ratio: Interval | None) -> str:
    """A step's factor, with the signs of a bound and of an extrapolation."""
    if ratio is None:
        return "no density"
    return f"{ratio.bound} {words.times(ratio.value)}".strip() + ("†" if ratio.extrapolated else "")


def waterfall(falls: Sequence[Fall], title: str, start: str, domain: tuple[float, float]) -> Spec:
    """Bars from density to density on a log axis, one a step, under the density of `start`; a factor stands beside each."""
    low, high = domain
    begin = falls[0].before
    rows: list[Spec] = [
        {
            "row": row,
            "top": row - 0.3,
            "bottom": row + 0.3,
            "label": words.clip(fall.label, 60),
            "variant": fall.variant,
            "before": fall.before,
            "after": fall.after,
            "mood": fall.mood or "inconclusive",
            "text": f"{words.SYMBOLS.get(fall.mood, '')} {told(fall.ratio)}",
            # Hollow: read off the reference outside its sizes.
            "fill": 0.0 if fall.ratio is not None and fall.ratio.extrapolated else 0.85,
            "at": max((value for value in (fall.before, fall.after) if value is not None), default=low),
            "next": row + 1,
        }
        for row, fall in enumerate(falls, start=1)
    ]
    drawn = [row for row in rows if row["before"] is not None and row["after"] is not None]
    last = len(falls) + 1
    ends: list[Spec] = [{"row": 0, "label": start, "after": begin, "variant": start, "next": 1}]
    if falls[-1].after is not None:
        ends.append({"row": last, "label": f"= {title}", "after": falls[-1].after, "variant": title, "next": last})
    lane = {"scale": {"domain": [last + 0.6, -0.6], "nice": False}, "axis": None}
    across = {"type": "quantitative", "scale": {"type": "log", "domain": [low, high], "nice": False}, "title": "density"}
    x = {**across, "axis": log_axis(low, high)}
    colour = {"field": "mood", "type": "nominal", "scale": MOOD_COLOURS, "legend": None}
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
                    "fillOpacity": own("fill", "quantitative"),
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
                    "color": own("ink", "nominal"),
                },
                align="right",
                limit=LABEL,
                fontSize=11,
            ),
        },
    ]
    return chart(words.clip(title, 40), 218, (last + 1) * ROW, {"layer": layers})
