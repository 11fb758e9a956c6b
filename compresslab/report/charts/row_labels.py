"""Renders charts whose row labels the chart library need not measure again for each chart.

The library measures a text by laying out its outlines, about 1 ms a label and three times that for one with a width limit: nine tenths of
the time of a chart of 200 rows. Labels are measured here, each once in a process. Then only the widest label of a chart goes through the
library, since it alone decides the chart's margin, and the others are set into the elements that the library leaves empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import vl_convert

_TEXT = re.compile(r"<text [^>]*?(?:/>|>([^<]*)</text>)")
_LEFT = re.compile(r'<path d="M(-?[\d.e-]+),')


class RowLabelRenderer:
    """Renders Vega-Lite specifications as SVG and keeps the widths of the row labels it has met.

    A row label is a text mark with a width limit. Its width depends on its text, font, font size and limit alone.
    """

    def __init__(self) -> None:
        self._widths: dict[tuple[Any, ...], tuple[str, float]] = {}

    def svg(self, chart: dict[str, Any]) -> str:
        """The SVG of `vl_convert.vegalite_to_svg(chart)`, byte for byte."""
        place = next((at for at, part in enumerate(chart.get("layer", ())) if _is_row_labels(part)), None)
        if place is None:
            return _drawn(chart)
        layer = chart["layer"][place]
        field, data = layer["encoding"]["text"]["field"], layer.get("data") or chart["data"]
        rows = data["values"]
        labels = self._measured([row[field] for row in rows], layer["mark"], chart.get("config", {}).get("font", "sans-serif"))
        widest = max(range(len(rows)), key=lambda row: labels[row][1], default=0)
        blank = {**data, "values": [{**row, field: row[field] if at == widest else ""} for at, row in enumerate(rows)]}
        layers = [{**part, "data": blank} if at == place and "data" in part else part for at, part in enumerate(chart["layer"])]
        text = _drawn({**chart, **({} if "data" in layer else {"data": blank}), "layer": layers})
        return _filled(text, place, [label for label, _ in labels]) or _drawn(chart)

    def _measured(self, texts: list[str], mark: dict[str, Any], font: str) -> list[tuple[str, float]]:
        """Each text as the SVG has it, cut at the limit and escaped, with its width in pixels."""
        style = (font, mark["fontSize"], mark["limit"])
        if missing := [text for text in dict.fromkeys(texts) if (text, *style) not in self._widths]:
            found = list(_laid_out(missing, *style[:2]))
            wide = [text for text, (_, width) in zip(missing, found, strict=True) if width > mark["limit"]]
            cut = dict(zip(wide, _laid_out(wide, *style), strict=True))
            for text, (label, width) in zip(missing, found, strict=True):
                self._widths[text, *style] = cut.get(text, (label, width))
        return [self._widths[text, *style] for text in texts]


def _drawn(chart: dict[str, Any]) -> str:
    return str(vl_convert.vegalite_to_svg(chart))


def _is_row_labels(layer: dict[str, Any]) -> bool:
    mark = layer.get("mark")
    return isinstance(mark, dict) and mark["type"] == "text" and "limit" in mark


def _laid_out(texts: list[str], font: str, size: float, limit: float | None = None) -> Iterable[tuple[str, float]]:
    """Each text as the SVG has it and its width, at most `limit`, beyond which it is cut."""
    style = {"font": {"value": font}, "fontSize": {"value": size}, "align": {"value": "right"}}
    if limit is not None:
        style["limit"] = {"value": limit}
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
    shown, widths = (svg.partition(f' {name}"')[2].partition("</g>")[0] for name in ("labels", "widths"))
    return zip((found[1] or "" for found in _TEXT.finditer(shown)), (-float(left) for left in _LEFT.findall(widths)), strict=True)


def _filled(svg: str, layer: int, labels: list[str]) -> str:
    """The SVG with these labels as the texts of a layer, "" if the layer has another number of texts."""
    head, name, rest = svg.partition(f' layer_{layer}_marks"')
    marks, end, tail = rest.partition("</g>")
    if marks.count("<text ") != len(labels):
        return ""
    left = iter(labels)

    def element(found: re.Match[str]) -> str:
        start = found[0].partition(">")[0].removesuffix("/")
        return f"{start}>{label}</text>" if (label := next(left)) else f"{start}/>"

    return f"{head}{name}{_TEXT.sub(element, marks)}{end}{tail}"
