"""The labels of rows are measured once, and the charts are those that the chart library makes alone."""

from __future__ import annotations

from typing import Any

import pytest
import vl_convert

from compresslab.records import Interval
from compresslab.report.charts import row_labels
from compresslab.report.charts.forest import Bar, forest
from compresslab.report.charts.row_labels import RowLabelRenderer
from compresslab.report.charts.stacked import stacked
from compresslab.report.charts.vega import CONFIG, Spec
from compresslab.report.charts.waterfall import WaterfallStep, waterfall

NAMES = ["base", "WIDE-CAPITALS-WWWWWWWWWWW", 'a<b>&"c"', "", "  two  spaces ", "naïve-模型", "a" * 60]


def _charts() -> dict[str, Spec]:
    ratio = Interval(value=0.8, low=0.7, high=0.9)
    bars = [Bar(name, ratio, "lowered") for name in NAMES]
    steps = [WaterfallStep(name, name, 1.0, 0.8, ratio, "lowered", "by bits") for name in NAMES]
    costs = [{"label": name, "part": part, "value": 3.0} for name in NAMES for part in ("step", "evaluation")]
    return {
        "forest": forest(bars, "r", "ratio", log=True, domain=(0.5, 2)),
        "forest of nothing": forest([], "r", "ratio", log=True, domain=(0.5, 2)),
        "waterfall": waterfall(steps, "leaf", "base", (0.5, 2)),
        "stacked": stacked(costs, "cost", "seconds"),
    }


@pytest.mark.parametrize("name", _charts())
def test_a_chart_is_that_of_the_chart_library_byte_for_byte(name: str) -> None:
    chart = {**_charts()[name], "config": CONFIG}
    renderer = RowLabelRenderer()
    assert renderer.svg(chart) == vl_convert.vegalite_to_svg(chart)
    assert renderer.svg(chart) == vl_convert.vegalite_to_svg(chart), "from remembered widths"


def test_labels_are_measured_once_and_one_a_chart_goes_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    real = row_labels._laid_out

    def laid_out(texts: list[str], *style: Any) -> Any:
        measured.extend(texts)
        return real(texts, *style)

    drawn: list[Spec] = []

    def to_svg(chart: Spec) -> str:
        drawn.append(chart)
        return str(vl_convert.vegalite_to_svg(chart))

    monkeypatch.setattr(row_labels, "_laid_out", laid_out)
    monkeypatch.setattr(row_labels, "_drawn", to_svg)
    renderer = RowLabelRenderer()
    bars = [Bar(f"variant-{number}", Interval(value=0.8, low=0.7, high=0.9), "lowered") for number in range(20)]
    for axis in ("accuracy", "loss"):
        renderer.svg({**forest(bars, "task", axis, log=True, domain=(0.5, 2)), "config": CONFIG})
    assert sorted(measured) == sorted(bar.label for bar in bars)
    assert [sum(bool(row["label"]) for row in chart["data"]["values"]) for chart in drawn] == [1, 1]
