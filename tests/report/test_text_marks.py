"""Letters are measured once, texts never, and the charts are those that the chart library makes alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import vl_convert

from compresslab.records import Interval
from compresslab.report import words
from compresslab.report.charts import text_marks
from compresslab.report.charts.forest import Bar, forest
from compresslab.report.charts.scatter import ScatterPoint, scatter
from compresslab.report.charts.stacked import stacked
from compresslab.report.charts.text_marks import TextMarkRenderer
from compresslab.report.charts.vega import CONFIG, Spec
from compresslab.report.charts.waterfall import WaterfallStep, waterfall

RATIO = Interval(value=0.8, low=0.7, high=0.9)
NAMES = ["base", "WIDE-MOONS-WWWWWWWWWWW", 'a<b>&"c"', "", "  two  spaces ", "naïve-模型", "a" * 60]


def _charts() -> dict[str, Spec]:
    bars = [Bar(name, RATIO, "lowered") for name in NAMES]
    steps = [WaterfallStep(name, name, 1.0, 0.8, RATIO, "lowered", "by bits") for name in NAMES]
    costs = [{"label": name, "part": part, "value": 3.0} for name in NAMES for part in ("step", "evaluation")]
    points = [ScatterPoint(name, "", 1e8 * place, 1 / place, 0.1, "lowered", False) for place, name in enumerate(NAMES, start=1)]
    return {
        "scatter": scatter(points, "size", "parameters", "bits per byte", words.count),
        "forest": forest(bars, "r", "ratio", log=True, domain=(0.5, 2)),
        "forest of nothing": forest([], "r", "ratio", log=True, domain=(0.5, 2)),
        "waterfall": waterfall(steps, "leaf", "base", (0.5, 2)),
        "stacked": stacked(costs, "cost", "seconds"),
    }


@pytest.mark.parametrize("name", _charts())
def test_a_chart_is_that_of_the_chart_library_byte_for_byte(name: str) -> None:
    chart = {**_charts()[name], "config": CONFIG}
    renderer = TextMarkRenderer()
    assert renderer.svg(chart) == vl_convert.vegalite_to_svg(chart)
    assert renderer.svg(chart) == vl_convert.vegalite_to_svg(chart), "from remembered widths"


def test_pairs_of_letters_that_stand_closer_together_make_the_margin_no_smaller() -> None:
    chart = {**forest([Bar("AVAVAVAV", RATIO, "raised")], "r", "ratio", log=True, domain=(0.5, 2)), "config": CONFIG}
    ours, theirs = (
        [float(number) for number in re.findall(r'width="(\d+)"|translate\((-?[\d.]+),', svg)[0] if number]
        for svg in (TextMarkRenderer().svg(chart), str(vl_convert.vegalite_to_svg(chart)))
    )
    assert theirs[0] < ours[0] < theirs[0] + 8


def test_letters_are_measured_once_and_no_text_of_a_mark_goes_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    real = text_marks._laid_out

    def laid_out(texts: list[str], *style: Any) -> Any:
        measured.extend(texts)
        return real(texts, *style)

    drawn: list[Spec] = []

    def to_svg(chart: Spec) -> str:
        drawn.append(chart)
        return str(vl_convert.vegalite_to_svg(chart))

    monkeypatch.setattr(text_marks, "_laid_out", laid_out)
    monkeypatch.setattr(text_marks, "_drawn", to_svg)
    renderer = TextMarkRenderer()
    bars = [Bar(f"variant-{number}", RATIO, "lowered") for number in range(20)]
    svgs = [renderer.svg({**forest(bars, "task", axis, log=True, domain=(0.5, 2)), "config": CONFIG}) for axis in ("accuracy", "loss")]
    assert len(drawn) == 2
    assert all(layer["encoding"]["text"] == {"value": ""} for chart in drawn for layer in chart["layer"] if "limit" in str(layer))
    assert all(f">variant-{number}</text>" in svg for svg in svgs for number in range(20))
    assert max(map(len, measured)) == len("x-x")
    assert len(measured) == len(set(measured))
