"""The page, the answer and the tables name the engine of a time and show the error of the model."""

from __future__ import annotations

import pytest

from compresslab.records import Interval, StudyRecord
from compresslab.report import facts, tables
from compresslab.report.answer import answer
from compresslab.report.charts.scatter import ScatterPoint, scatter
from compresslab.report.html import render

from . import studies

ENGINES = {"this-machine": "the kernels measured here", "rtx-4090": "an unknown engine", "h100-sxm": "vLLM 0.6.3"}
RATIO = Interval(value=0.5, low=0.123, high=0.987)


@pytest.fixture
def with_engines() -> StudyRecord:
    whole = studies.quickstart()
    variants = []
    for variant in whole.variants:
        assert variant.density is not None
        seconds = {name: Interval(value=value, low=value / 2, high=value * 3) for name, value in variant.density.modelled_seconds.items()}
        density = variant.density.model_copy(update={"engines": ENGINES, "modelled_interval": seconds})
        comparisons = [one.model_copy(update={"time_ratio": dict.fromkeys(ENGINES, RATIO)}) for one in variant.comparisons]
        variants.append(variant.model_copy(update={"density": density, "comparisons": comparisons}))
    return whole.model_copy(update={"variants": variants})


def test_a_verdict_by_time_names_engine_and_machine(with_engines: StudyRecord) -> None:
    counted = " ".join(line for line in answer(with_engines).details if line.startswith("Counted"))
    assert "by time with vLLM 0.6.3 on h100-sxm" in counted
    assert "by time with an unknown engine on rtx-4090" in counted
    assert "by time with the kernels measured here on this-machine" in counted


def test_a_study_without_engines_says_modelled() -> None:
    assert facts.engines(studies.quickstart()) == {}
    assert facts.time_on("h20", {}) == "by modelled time on h20"


def test_variants_with_different_engines_are_both_named(with_engines: StudyRecord) -> None:
    last = with_engines.variants[-1]
    assert last.density is not None
    other = last.model_copy(update={"density": last.density.model_copy(update={"engines": {"h100-sxm": "SGLang"}})})
    found = facts.engines(with_engines.model_copy(update={"variants": [*with_engines.variants[:-1], other]}))
    assert found["h100-sxm"] == "vLLM 0.6.3 or SGLang"


def test_the_page_shows_the_interval_of_a_modelled_ratio_where_nothing_was_measured(with_engines: StudyRecord) -> None:
    page = render(with_engines)
    assert "by time<small>h100-sxm, vLLM 0.6.3</small>" in page
    children = [variant for variant in with_engines.variants if variant.parent]
    timed = [variant for variant in children if variant.timing and variant.timing.ratio]
    assert page.count("[0.123, 0.987]") == 3 * len(children) - len(timed), "this machine's modelled ratio gives way to the measured one"


def test_the_table_of_times_has_engine_and_interval(with_engines: StudyRecord) -> None:
    frame = tables.times(with_engines)
    modelled = frame[(frame["kind"] == "modelled") & (frame["hardware"] == "h100-sxm")]
    assert set(modelled["engine"]) == {"vLLM 0.6.3"}
    assert (modelled["seconds_high"] == 3 * modelled["seconds"]).all()


def test_a_point_with_an_uncertain_time_has_a_horizontal_interval_inside_the_axis() -> None:
    points = [ScatterPoint("base", "", 1.0, 1.0, 0.1, "base"), ScatterPoint("child", "base", 0.5, 1.2, 0.1, "raised", x_ends=(0.05, 2.0))]
    spec = str(scatter(points, "t", "x", "y", str))
    assert "'left': 0.05" in spec
    assert "'right': 2.0" in spec
    low, high = (float(part) for part in spec.split("'type': 'log', 'domain': [")[1].split("]")[0].split(", "))
    assert low <= 0.05
    assert high >= 2.0
