"""The panel that picks a variant, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compresslab.records import Interval, StudyRecord, VariantRecord
from compresslab.report import html
from compresslab.report.figures import Figures

from . import studies
from .test_browser import browser, pytestmark  # noqa: F401 - the fixture and the marks


@pytest.fixture(autouse=True)
def _no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing charts is what takes time."""
    monkeypatch.setattr(html, "figures", lambda _: Figures())


def with_change(variant: VariantRecord, value: float, half: float) -> VariantRecord:
    """The variant with an accuracy this far from its root's on every task; the interval of the mean over 4 tasks is half as wide."""
    change = Interval(value=value, low=value - 2 * half, high=value + 2 * half)
    compared = [
        one.model_copy(update={"tasks": [task.model_copy(update={"accuracy": change}) for task in one.tasks]})
        for one in variant.comparisons
    ]
    return variant.model_copy(update={"comparisons": compared})


def study() -> StudyRecord:
    """bnb-nf4 loses 1 point within its interval, depth-24-healed 1.5 for certain, the rest 20."""
    losses = {"bnb-nf4": (-0.01, 0.02), "depth-24-healed": (-0.015, 0.01), "width-75": (-0.03, 0.02)}
    whole = studies.quickstart()
    return whole.model_copy(
        update={"variants": [with_change(one, *losses.get(one.name, (-0.2, 0.01))) if one.parent else one for one in whole.variants]}
    )


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(html.write(study(), tmp_path).as_uri())
    yield page
    page.close()


def test_the_best_and_the_runner_up_keep_to_the_limits(opened: Any) -> None:
    assert "bnb-nf4" in opened.inner_text("#picked th:nth-child(2)")
    assert "depth-24-healed" in opened.inner_text("#picked th:nth-child(3)")
    text = opened.inner_text("#picked")
    assert "3 of 6 fit." in text
    # The value of width-75 is beyond 2 points, its interval is not.
    assert "Not told apart from the limit of loss, and left out by their value: width-75" in text
    opened.fill("#pick-loss", "0.5")
    assert "best: base" in opened.inner_text("#picked")
    opened.fill("#pick-loss", "0.5")
    opened.fill("#pick-memory", "0.2")
    assert "No variant fits." in opened.inner_text("#picked")
    opened.fill("#pick-loss", "")
    assert "best: depth-24-healed-nf4" in opened.inner_text("#picked")


def test_a_loss_within_its_interval_is_not_told_apart(opened: Any) -> None:
    row = opened.inner_text("#picked tr:has(th:text-is('Accuracy against the base'))")
    assert "not told apart from the base in accuracy" in row
    assert "its interval reaches beyond the limit" in row
    assert "bnb-nf4 and depth-24-healed are not told apart in accuracy" in opened.inner_text("#picked")


def test_a_profile_sets_the_limits_by_keyboard_and_says_what_the_record_lacks(opened: Any) -> None:
    opened.focus(".profiles button")
    opened.keyboard.press("Enter")
    assert opened.input_value("#pick-memory") == "4"
    assert "no time on oneplus-12" in opened.inner_text("#pick-note")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    assert opened.input_value("#pick-device") == "h100-sxm"
    assert opened.input_value("#pick-memory") == "80"
    opened.fill("#pick-time", "0.007")
    assert "best: depth-24-healed-nf4" not in opened.inner_text("#picked")
    opened.fill("#pick-loss", "")
    assert "best: depth-24-healed-nf4" in opened.inner_text("#picked")


def test_without_data_for_a_limit_its_field_says_so(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    bare = [
        one.model_copy(update={"timing": None, "density": None, "comparisons": [], "scores": []}) for one in studies.quickstart().variants
    ]
    page = browser.new_page()
    page.goto(html.write(studies.study(bare, workload={}), tmp_path).as_uri())
    assert [page.is_disabled(f"#pick-{one}") for one in ("memory", "device", "time", "loss")] == [True] * 4
    assert "the record has no times" in page.inner_text("#picker")
    assert "nothing to rank them by" in page.inner_text("#picked")
    page.close()


@pytest.mark.parametrize("width", [400, 1920])
def test_the_panel_fits_the_width(browser: Any, tmp_path: Path, width: int) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    page.goto(html.write(study(), tmp_path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_density_that_is_only_a_bound_is_not_ranked(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    whole = study()
    bounded = []
    for one in whole.variants:
        if one.name == "bnb-nf4" and one.density and one.density.params:
            bound = one.density.params.model_copy(update={"value": 99.0, "low": 99.0, "high": 99.0, "bound": "<"})
            one = one.model_copy(update={"density": one.density.model_copy(update={"params": bound})})
        bounded.append(one)
    page = browser.new_page()
    page.goto(html.write(whole.model_copy(update={"variants": bounded}), tmp_path).as_uri())
    page.fill("#pick-loss", "100")
    page.select_option("#pick-goal", "density")
    assert "bnb-nf4" not in page.inner_text("#picked table")
    assert "or only a bound of it: bnb-nf4." in page.inner_text("#picked")
    page.close()
