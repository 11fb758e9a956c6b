"""What the charts are drawn from: the frontier, the chains, the places on the ruler."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from compresslab.density import GROWTH_PER_DAY
from compresslab.records import Curve, Interval
from compresslab.report import figures as drawing
from compresslab.report.charts.ruler import CurvePoint, ruler
from compresslab.report.charts.scatter import ScatterPoint, frontier
from compresslab.report.charts.vega import ChartRenderer
from compresslab.report.charts.waterfall import WaterfallStep, format_factor, waterfall
from compresslab.report.figures import figures
from compresslab.report.html import render
from compresslab.report.words import SYMBOLS

from . import studies

CURVE = Curve(
    task="arc_easy",
    unit="bits per byte",
    params=[1e7, 1e8, 1e9],
    middle=[1.4, 1.0, 0.7],
    low=[1.3, 0.95, 0.65],
    high=[1.5, 1.05, 0.75],
    fitted=(1e8, 1e9),
)


def test_the_frontier_holds_what_nothing_beats_on_both_axes() -> None:
    points = [ScatterPoint(name, "", x, y, 0.0, "base") for name, x, y in (("a", 1, 5), ("b", 2, 3), ("c", 3, 4), ("d", 4, 1), ("e", 4, 2))]
    assert [point.name for point in frontier(points)] == ["a", "b", "d"]


def test_every_chain_to_an_end_has_a_waterfall_with_its_steps() -> None:
    drawn = figures(studies.quickstart()).chains
    ends = {names[-1]: (names, svg) for names, svg in drawn}
    assert ends["depth-24-healed-nf4"][0] == ["base", "depth-24", "depth-24-healed", "depth-24-healed-nf4"]
    assert "distill forward-kl" in ends["depth-24-healed-nf4"][1]
    assert "depth-24" not in ends  # another variant goes on from it
    assert drawn[0][0] == ends["depth-24-healed-nf4"][0], "the longest first"


def test_extrapolations_and_bounds_are_told_beside_the_bars() -> None:
    assert format_factor(Interval(value=0.3, low=0.2, high=0.4)) == "×0.30"
    assert format_factor(Interval(value=0.3, low=0.0, high=0.3, bound="<", extrapolated=True)) == "< ×0.30†"
    step = WaterfallStep("prune depth", "child", 0.5, 0.15, Interval(value=0.3, low=0.2, high=0.4, extrapolated=True), "lowered")
    bar = waterfall([step], "child", "base", (0.1, 1))["layer"][1]["data"]["values"][0]
    assert bar["fill"] == 0


def test_a_chain_is_drawn_by_the_count_of_its_answer_and_a_step_with_another_headline_says_so() -> None:
    """base -> prune (parameters) -> distill (parameters) -> nf4 (bits): all bars by bits, so they multiply to the answer by bits."""
    study = studies.quickstart()
    counted = [
        one.model_copy(update={"comparisons": [found.model_copy(update={"count": "bits"}) for found in one.comparisons]})
        if one.name == "depth-24-healed-nf4"
        else one
        for one in study.variants
    ]
    chain = drawing._chains(study.model_copy(update={"variants": counted}))[0]
    assert drawing._count_of(chain) == "bits"
    steps = [drawing._waterfall_step(parent, child, "bits") for parent, child in pairwise(chain)]
    for step, child in zip(steps, chain[1:], strict=True):
        assert child.density is not None
        assert child.density.bits is not None
        assert step.after == child.density.bits.value
        assert step.ratio == child.comparisons[0].ratio_bits
    assert steps[0].before is not None
    assert steps[-1].after is not None
    assert math.prod(step.ratio.value for step in steps if step.ratio) == pytest.approx(steps[-1].after / steps[0].before)
    assert [step.note for step in steps] == ["", "", ""], "the pruned and the healed model have r by bits as by parameters"
    own, judged = chain[-1].comparisons[0].headline
    by_parameters = drawing._waterfall_step(chain[-2], chain[-1], "params")
    assert by_parameters.ratio == chain[-1].comparisons[0].ratio
    assert by_parameters.note == f"by stored bits {SYMBOLS[judged]} {format_factor(own)}"
    svg = next(svg for names, svg in figures(study.model_copy(update={"variants": counted})).chains if names[-1] == chain[-1].name)
    assert "density by stored bits" in svg


def test_a_step_without_density_keeps_its_row_and_says_so() -> None:
    study = studies.quickstart()
    blind = [one.model_copy(update={"density": None, "comparisons": []}) if one.name == "depth-24" else one for one in study.variants]
    svg = next(svg for names, svg in figures(study.model_copy(update={"variants": blind})).chains if "depth-24" in names)
    assert "no density" in svg
    assert "prune depth" in svg


@pytest.mark.slow
def test_more_chains_than_anyone_looks_at_are_counted_and_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawing.MAX_CHAINS == 24
    monkeypatch.setattr(drawing, "MAX_CHAINS", 4)
    found = figures(studies.many(21))
    assert (len(found.chains), found.chains_left_out) == (4, 3)
    assert "3 more chains are not drawn" in render(studies.many(21))


@pytest.mark.parametrize("read", [3e6, 4e8, 5e10])
def test_a_variant_lies_on_the_ruler_between_its_own_size_and_the_one_read_off(read: float) -> None:
    spec = ruler(CURVE, [CurvePoint("child", 2e8, 0.9, read, read < 1e8, "lowered", False)])
    [mark] = spec["layer"][-1]["data"]["values"]
    low, high = spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    assert mark["n"] == 2e8
    assert mark["read"] == min(max(read, low), high)
    assert mark["fill"] == ("var(--card)" if read < 1e8 else "var(--lowered)")
    assert low >= 1e7
    with ChartRenderer() as renderer:
        assert 'data-variant="child"' in renderer.element(spec, "a ruler")


def test_named_variants_lie_on_the_densing_laws_line() -> None:
    study = studies.quickstart()
    [days] = figures(study).days
    for variant in study.variants[1:]:
        assert (f'data-variant="{variant.name}"' in days) == variant.named
    assert f"ln r = A t, A = {GROWTH_PER_DAY} a day" in render(study)
    assert figures(studies.study([studies.base()])).days == []


def test_the_page_places_every_variant_on_the_ruler() -> None:
    page = render(studies.quickstart(curves=[CURVE]))
    section = page[page.index('<h2 id="ruler">') : page.index('<h2 id="ratios">')]
    for variant in studies.quickstart().variants:
        assert f'data-variant="{variant.name}"' in section


def test_marks_tell_whose_they_are_and_no_screen_reader_reads_each() -> None:
    page = render(studies.quickstart())
    assert page.count('data-variant="bnb-nf4"') > 10
    assert "graphics-symbol" not in page
