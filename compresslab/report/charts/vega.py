"""Common parts of the charts: colours, axes, and rendering of a specification to SVG.

The specifications are plain dicts, because building the same charts with altair's checked objects took 2 s of a 2.5 s page.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from compresslab.report import words
from compresslab.report.charts.drawing import Drawing, NotDrawnError

FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
VERDICTS = ("raised", "lowered", "inconclusive")

SHAPES = {"raised": "triangle-up", "lowered": "triangle-down", "inconclusive": "diamond"}
Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

CONFIG: Spec = {
    "background": None,
    "aria": False,  # the figure has one label; a label for each mark would be too much for a screen reader
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
VERDICT_COLOURS = {"domain": list(VERDICTS), "range": [f"var(--{verdict})" for verdict in VERDICTS]}
ROW = 22
LABEL = 132
LETTERS = 22
"""Letters for which a row's label has room. Longer names are cut in the middle."""
VARIANT: Spec = {"description": {"field": "variant", "type": "nominal"}}
"""A channel with the variant's name; `ChartRenderer` turns it into an attribute that the page's filter reads."""


class ChartRenderer(Drawing):
    """Renders the charts of one page and numbers them, so that their ids are unique.

    Attributes:
        drawn: number of charts. lost: why charts could not be drawn, one text a chart.
    """

    _LABELLED = re.compile(r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"')
    _ID = re.compile(r'(?<=\bid=")[^"]+|(?<=url\(#)[^)]+')
    _ARIA = re.compile(r' (?:role="graphics-[a-z]+"|aria-roledescription="[^"]*"|aria-label="[^"]*")')

    def __init__(self) -> None:
        super().__init__()
        self.begin_page()

    def begin_page(self) -> None:
        """Count the charts of another page."""
        self.drawn = 0
        self.lost: list[str] = []

    def element(self, chart: Spec, label: str) -> str:
        """A chart as an SVG element for the page, with `label` as its accessible name. If it cannot be drawn, a sentence that says so."""
        self.drawn += 1
        try:
            text = self.svg({**chart, "config": CONFIG})
        except NotDrawnError as error:
            self.lost.append(str(error))
            return f"<p>Not drawn: {_attribute(label)}. {_attribute(str(error))}. The tables of this page have the figures.</p>"
        # Vega counts ids over the whole process; these ids are the same each time a page is rendered.
        ids = {name: f"c{self.drawn}-{place}" for place, name in enumerate(dict.fromkeys(self._ID.findall(text)))}
        text = self._ID.sub(lambda found: ids[found[0]], text)
        text = self._ARIA.sub("", self._LABELLED.sub(r' data-variant="\1"', text))
        text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1)
        return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1)


_SHARED: ContextVar[ChartRenderer | None] = ContextVar("the renderer that pages share", default=None)


@contextlib.contextmanager
def shared_renderer() -> Iterator[None]:
    """The pages that are written in this context are drawn by one process, since the chart library takes half a second to start."""
    with ChartRenderer() as renderer:
        token = _SHARED.set(renderer)
        try:
            yield
        finally:
            _SHARED.reset(token)


@contextlib.contextmanager
def page_renderer() -> Iterator[ChartRenderer]:
    """A renderer for one page: the one that pages share, or one of its own."""
    if (shared := _SHARED.get()) is not None:
        shared.begin_page()
        yield shared
        return
    with ChartRenderer() as renderer:
        yield renderer


def layer(mark: str, encoding: Spec, **style: Any) -> Spec:
    """One kind of mark. With the channel of `VARIANT` each mark has its variant's name."""
    named = {"aria": True} if "description" in encoding else {}
    return {"mark": {"type": mark, **style, **named}, "encoding": encoding}


def unscaled(name: str, kind: str) -> Spec:
    """A channel whose values are used without a scale: CSS colours, pixels, degrees."""
    return {"field": name, "type": kind, "scale": None, "legend": None}


def chart(title: str, width: int, height: int, body: Spec) -> Spec:
    """A whole chart with its plot's size in pixels."""
    schema = "https://vega.github.io/schema/vega-lite/v6.json"  # an identifier, not fetched
    return {"$schema": schema, "title": title, "width": width, "height": height, **body, "resolve": {"scale": {"color": "independent"}}}


def log_axis(low: float, high: float, form: Callable[[float], str] = words.short) -> Spec:
    """A log axis with ticks at round values. The labels are set here, because Vega's own would mix units."""
    ticks = round_ticks(low, high)
    # In a label expression datum.index runs from 0 to 1 over the ticks.
    steps = max(1, len(ticks) - 1)
    labels = " : ".join(f"round(datum.index * {steps}) == {place} ? '{form(tick)}'" for place, tick in enumerate(ticks))
    return {"values": ticks, "labelExpr": f"{labels} : ''"}


def log_domain(values: Sequence[float], *, around: float | None = None, reach: float = 1.0) -> tuple[float, float]:
    """The domain of a log axis: the positive finite values with a margin, and at least a factor `reach` on each side of `around`."""
    fit = [value for value in [*values, *([around] if around else [])] if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(fit), max(fit)
    pad = max((high / low) ** 0.08, 1.12)
    low, high = low / pad, high * pad
    if around:
        low, high = min(low, around / reach), max(high, around * reach)
    return low, high


def padded(low: float, high: float) -> tuple[float, float]:
    """The domain of a linear axis with a margin of a tenth."""
    margin = 0.1 * (high - low) or max(0.05 * abs(high), 0.01)
    return low - margin, high + margin


def clamp(value: float, low: float, high: float) -> float:
    """The value, limited to [low, high]; NaN becomes `high`."""
    return high if math.isnan(value) else min(max(value, low), high)


def round_ticks(low: float, high: float) -> list[float]:
    """About five round values inside a log range."""
    fine = (tuple(step / 100 for step in range(100, 1000, width)) for width in (50, 20, 10, 5, 2, 1))
    for figures in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), *fine):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [figure * 10.0**power for power in powers for figure in figures if low <= figure * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks[:: max(1, math.ceil(len(ticks) / 7))]
    return [low, high]


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
