"""The list of studies in a real browser: search, sorting, keyboard, widths, dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compresslab.report.html import replace
from compresslab.report.index import write_index
from compresslab.report.words import record_json

from . import studies
from .test_browser import browser, pytestmark  # noqa: F401 - the fixture and the marks


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three studies, one of them unfinished, and one that cannot be read."""
    for name, variants in (("alpha", 8), ("beta", 3), ("gamma", 5)):
        whole = studies.unfinished(study=name, question=f"What of {name}?")
        (tmp_path / name).mkdir()
        replace(tmp_path / name / "study.json", record_json(whole.model_copy(update={"variants": whole.variants[:variants]})))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    return write_index(tmp_path)


@pytest.fixture(params=[(1280, "light"), (400, "dark"), (1920, "light")])
def opened(browser: Any, index: Path, request: pytest.FixtureRequest) -> Iterator[Any]:  # noqa: F811
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(index.as_uri())
    yield page
    page.close()


def listed(page: Any) -> list[str]:
    return [row.query_selector("a").inner_text() for row in page.query_selector_all("[data-study]") if row.is_visible()]


def test_search_and_width(opened: Any) -> None:
    assert sorted(listed(opened)) == ["alpha", "beta", "broken", "gamma"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= opened.viewport_size["width"]
    opened.keyboard.press("/")
    opened.keyboard.type("what gamma")
    assert listed(opened) == ["gamma"]
    assert opened.inner_text("#shown") == "1 of 4 studies"
    opened.keyboard.press("Escape")
    assert len(listed(opened)) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_no_violation(browser: Any, index: Path, scheme: str, width: int) -> None:  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.goto(index.as_uri())
    found = Axe().run(page).response["violations"]
    page.close()
    assert [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found] == []


def test_a_heading_sorts_and_the_chart_is_of_the_verdicts(browser: Any, index: Path) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(index.as_uri())
    page.click("th:has-text('Variants') button")
    assert listed(page) == ["beta", "gamma", "alpha", "broken"]
    widths = page.eval_on_selector_all("svg.bar", "(all) => all.map((one) => one.getBBox().width)")
    assert max(widths) == pytest.approx(120, abs=0.2)
    assert sorted(widths)[0] < 120
    page.close()


def test_dates_sort_by_day_and_not_by_year(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    dates = {"middle": "2026-11-02T01:00:00+00:00", "first": "2026-10-30T23:00:00+00:00", "last": "2026-11-02T09:00:00+00:00"}
    for name, finished in dates.items():
        whole = studies.quickstart(study=name)
        provenance = whole.provenance.model_copy(update={"finished": finished})
        (tmp_path / name).mkdir()
        replace(tmp_path / name / "study.json", record_json(whole.model_copy(update={"provenance": provenance})))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(write_index(tmp_path).as_uri())
    page.click("th:has-text('Finished') button")
    assert listed(page) == ["first", "middle", "last"]
    page.click("th:has-text('Finished') button")
    assert listed(page) == ["last", "middle", "first"]
    page.close()
