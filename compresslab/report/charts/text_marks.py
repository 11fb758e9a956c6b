"""Renders charts whose text marks the chart library need not measure.

The library measures a text by laying out the outlines of its letters, several times a chart: about a sixth of a millisecond a letter, and
most of the time of a chart of 200 rows. Here a text's width is the sum of its letters' advances, each measured once in a process.
The library draws the marks with empty texts, and the texts are set into the elements that it leaves empty. A mark of the same width keeps
the place of the row labels, since the widest one decides the chart's margin.

Margins may differ from the library's by pixels. Kerning is not counted. And a sign that the font lacks does not change the width of the
other letters, as in a browser; the library takes all letters of such a text from another font.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import vl_convert

ELLIPSIS = "…"
PADDING = 5
"""Of the library, in pixels around a chart without one of its own."""
Spec = dict[str, Any]

_TEXT = re.compile(r'<text [^>]*?transform="translate\((-?[\d.e-]+),[^>]*?/>')
_LEFT = re.compile(r'<path d="M(-?[\d.e-]+),')
_SIZE = re.compile(r'width="(\d+)" height="(\d+)" viewBox="0 0 \d+ \d+"><g [^>]*?translate\((\d+),')


@dataclass(frozen=True)
class _Texts:
    """The texts of one layer. `name`: of its group in the SVG. `end`: where row labels end, `None` of other texts. All in pixels."""

    name: str
    texts: list[str]
    widths: list[float]
    end: float | None


class TextMarkRenderer:
    """Renders Vega-Lite specifications as SVG and keeps the widths of the letters that it has met, by font and size."""

    def __init__(self) -> None:
        self._advances: dict[tuple[str, float], dict[str, float]] = {}

    def svg(self, chart: Spec) -> str:
        """The SVG of `vl_convert.vegalite_to_svg(chart)`; its margins may differ by pixels."""
        layers: list[_Texts] = []
        blank = self._without_texts(chart, chart.get("data"), chart.get("config", {}).get("font", "sans-serif"), "", layers)
        if not layers:
            return _drawn(chart)
        starts = [found.end - width for found in layers if found.end is not None for width in found.widths]
        if starts:
            blank["layer"] = [*blank["layer"], _spacer(min(starts))]
        svg = _without_group(_drawn(blank), len(chart["layer"]))
        return _filled(svg, layers, chart.get("config", {}).get("padding", PADDING)) or _drawn(chart)

    def _without_texts(self, chart: Spec, data: Spec | None, font: str, name: str, found: list[_Texts]) -> Spec:
        """The chart with empty texts. What they are goes into `found`."""
        parts = []
        for place, layer in enumerate(chart.get("layer", ())):
            path, own = f"{name}layer_{place}_", layer.get("data", data)
            if "layer" in layer:
                parts.append(self._without_texts(layer, own, font, path, found))
            elif _is_drawn_here(layer) and own is not None:
                mark, field = layer["mark"], layer["encoding"]["text"]["field"]
                texts, limit = [row[field].strip() for row in own["values"]], mark.get("limit", math.inf)
                advances = self._letters(texts, font, mark["fontSize"])
                widths = [min(_width(text, advances), limit) for text in texts]
                end = layer["encoding"]["x"]["value"] if _is_row_labels(layer) else None
                found.append(_Texts(f"{path}marks", [_cut(text, advances, limit) for text in texts], widths, end))
                blank = {key: value for key, value in mark.items() if key != "limit"}
                parts.append({**layer, "mark": blank, "encoding": {**layer["encoding"], "text": {"value": ""}}})
            else:
                parts.append(layer)
        return {**chart, "layer": parts} if "layer" in chart else chart

    def _letters(self, texts: Iterable[str], font: str, size: float) -> dict[str, float]:
        """The advance of each letter of these texts, in pixels."""
        known = self._advances.setdefault((font, size), {})
        if missing := sorted({*"".join(texts), ELLIPSIS} - known.keys()):
            # Between two letters, because the width of a space alone is 0.
            pair, *widths = _laid_out(["xx", *(f"x{letter}x" for letter in missing)], font, size)
            known.update({letter: width - pair for letter, width in zip(missing, widths, strict=True)})
        return known


def _drawn(chart: Spec) -> str:
    return str(vl_convert.vegalite_to_svg(chart))


def _is_drawn_here(layer: Spec) -> bool:
    """Whether a layer is one of texts of which only the chart's margin depends on their width."""
    mark = layer.get("mark")
    return isinstance(mark, dict) and mark["type"] == "text" and (mark.get("align") == "left" or _is_row_labels(layer))


def _is_row_labels(layer: Spec) -> bool:
    return layer["mark"].get("align") == "right" and "value" in layer["encoding"]["x"]


def _width(text: str, advances: dict[str, float]) -> float:
    return sum(advances[letter] for letter in text)


def _cut(text: str, advances: dict[str, float], limit: float) -> str:
    """The text, or its longest beginning that is narrower than the limit with an ellipsis."""
    if _width(text, advances) < limit:
        return text
    width = advances[ELLIPSIS]
    for place, letter in enumerate(text):
        width += advances[letter]
        if width >= limit:
            return text[:place] + ELLIPSIS
    return text


def _spacer(start: float) -> Spec:
    """A mark that keeps the place from here to the plot, in pixels from the plot's left side."""
    encoding = {"x": {"value": start}, "x2": {"value": 0}, "y": {"value": 0}}
    return {"data": {"values": [{}]}, "mark": {"type": "rule", "strokeWidth": 0}, "encoding": encoding}


def _without_group(svg: str, layer: int) -> str:
    """The SVG without the marks of this layer."""
    return re.sub(rf'<g class="mark-rule role-mark layer_{layer}_marks"[^>]*>.*?</g>', "", svg, count=1)


def _laid_out(texts: Sequence[str], font: str, size: float) -> list[float]:
    """The width of each text in pixels, as the library measures it."""
    style = {"font": {"value": font}, "fontSize": {"value": size}, "align": {"value": "right"}}
    bars = {"x": {"field": "bounds.x1"}, "x2": {"value": 0}, "y": {"value": 0}, "height": {"value": 1}}
    svg = vl_convert.vega_to_svg(
        {
            "$schema": "https://vega.github.io/schema/vega/v6.json",
            "data": [{"name": "texts", "values": [{"text": text} for text in texts]}],
            "marks": [
                {
                    "name": "labels",
                    "type": "text",
                    "from": {"data": "texts"},
                    "encode": {"update": {"text": {"field": "text"}, **style}},
                },
                {"name": "widths", "type": "rect", "from": {"data": "labels"}, "encode": {"update": bars}},
            ],
        }
    )
    return [-float(left) for left in _LEFT.findall(svg.partition(' widths"')[2].partition("</g>")[0])]


def _filled(svg: str, layers: list[_Texts], padding: float) -> str:
    """The SVG with the texts of these layers, as wide as they need; "" if a layer has another number of texts."""
    right = 0.0
    for layer in layers:
        head, name, rest = svg.partition(f' {layer.name}"')
        marks, end, tail = rest.partition("</g>")
        places = [float(left) for left in _TEXT.findall(marks)]
        if len(places) != len(layer.texts):
            return ""
        svg = f"{head}{name}{_TEXT.sub(_setting(iter(layer.texts)), marks)}{end}{tail}"
        if layer.end is None:
            ends = (place + width for place, width in zip(places, layer.widths, strict=True) if width)
            right = max(right, max(ends, default=0.0))
    return _widened(svg, right + padding)


def _setting(texts: Iterator[str]) -> Any:
    """Gives each empty element the next text."""

    def element(found: re.Match[str]) -> str:
        text = next(texts)
        return f"{found[0].removesuffix('/>')}>{escape(text)}</text>" if text else found[0]

    return element


def _widened(svg: str, right: float) -> str:
    """The SVG with room to `right`, in pixels from the plot's left side, rounded as the library does."""
    found = _SIZE.search(svg)
    if found is None:
        return svg
    width, height, left = (int(number) for number in found.groups())
    width = max(width, left + math.ceil(right))
    return svg.replace(found[0].partition(">")[0], f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"', 1)
