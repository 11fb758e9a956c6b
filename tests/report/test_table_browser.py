"""The verdict table in a real browser: sorting, columns by choice, figures of a mark, with mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compresslab.report import html
from compresslab.report.figures import Figures

from . import studies
from .test_browser import browser, pytestmark, rows  # noqa: F401 - the fixture and the marks


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page without its charts, because drawing them is what takes time."""
    with monkeypatch.context() as patched:
        patched.setattr(html, "figures", lambda _: Figures())
        return html.write(studies.with_failure(), tmp_path / "bare")


@pytest.fixture
def opened(browser: Any, bare_path: Path) -> Iterator[Any]:  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(bare_path.as_uri())
    yield page
    page.close()


def test_a_heading_sorts_its_column_by_mouse_and_keyboard_and_again_undoes_it(opened: Any) -> None:
    before = rows(opened)
    heading = 'table.verdicts th[data-col="stored"]'
    opened.click(f"{heading} button")
    assert opened.get_attribute(heading, "aria-sort") == "ascending"
    sizes = {one.name: one.size.stored_bytes for one in studies.quickstart().variants if one.size}
    # a variant that was not built has no size and stands last
    assert rows(opened) == [*sorted(sizes, key=lambda name: sizes[name]), "gptq"]
    opened.focus(f"{heading} button")
    opened.keyboard.press("Enter")
    assert opened.get_attribute(heading, "aria-sort") == "descending"
    assert rows(opened)[-1] == "gptq"
    assert sizes[rows(opened)[0]] == max(sizes.values())
    opened.keyboard.press("Enter")
    assert opened.get_attribute(heading, "aria-sort") is None
    assert rows(opened) == before


@pytest.mark.parametrize(
    ("texts", "ordered"),
    [
        (["2 h 5 min", "3 min 20 s", "90 ms", "0.42 s", "–"], ["90 ms", "0.42 s", "3 min 20 s", "2 h 5 min", "–"]),
        (["1.2 GB", "900 MB", "512 B", "3 kB"], ["512 B", "3 kB", "900 MB", "1.2 GB"]),
        (["1.5 B", "134.5 M", "999"], ["999", "134.5 M", "1.5 B"]),
        (["+0.1", "−0.3", "−1.2e−5", "∞", "< 0.05"], ["−0.3", "−1.2e−5", "< 0.05", "+0.1", "∞"]),
        (["1,234", "45.1 %", "×0.81"], ["45.1 %", "×0.81", "1,234"]),
        (["task-10", "task-9", "a"], ["a", "task-9", "task-10"]),
        (["12abc", "11b", "2xyz"], ["2xyz", "11b", "12abc"]),
        (
            ["2026-11-26T23:31:14+00:00", "2026-02-01T08:00:00+00:00", "2025-12-31T08:00:00+00:00"],
            ["2025-12-31T08:00:00+00:00", "2026-02-01T08:00:00+00:00", "2026-11-26T23:31:14+00:00"],
        ),
    ],
)
def test_cells_are_ordered_by_what_they_say(browser: Any, bare_path: Path, texts: list[str], ordered: list[str]) -> None:  # noqa: F811
    cells = "".join(f"<tr><th scope='row'>x</th><td>{text.replace('<', '&lt;')}<small>5</small></td></tr>" for text in texts)
    table = f"<table id='mine'><thead><tr><th>A</th><th>B</th></tr></thead><tbody>{cells}</tbody></table>"
    place = '<section aria-labelledby="verdicts">'
    bare_path.write_text(bare_path.read_text().replace(place, table + place, 1))
    page = browser.new_page()
    page.goto(bare_path.as_uri())
    page.click("#mine th:nth-child(2) button")
    assert page.eval_on_selector_all("#mine td", "(all) => all.map((one) => one.firstChild.textContent)") == ordered
    page.close()


def test_columns_are_by_choice_also_beside_a_reason_that_spans_several(opened: Any) -> None:
    opened.click("summary:text-is('Columns and order')")
    opened.check("#columns input[value=days]")
    opened.check("#columns input[value=root]")
    cells = "table.verdicts tr[data-variant=gptq] [data-cols]"
    assert opened.get_attribute(cells, "colspan") == "4"
    opened.uncheck("#columns input[value=days]")
    assert not opened.is_visible('table.verdicts th[data-col="days"]')
    assert opened.get_attribute(cells, "colspan") == "3"
    assert opened.is_visible('table.verdicts th[data-col="memory"]')


def test_a_narrow_screen_sorts_by_a_list(browser: Any, bare_path: Path) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.goto(bare_path.as_uri())
    page.click("summary:text-is('Columns and order')")
    page.select_option("#sort-by", label="Stored, ascending")
    assert rows(page)[0] in ("bnb-nf4", "depth-24-healed-nf4")
    page.close()


@pytest.mark.slow
def test_a_mark_tells_its_figures_when_pointed_at_and_by_arrow_keys(browser: Any, page_path: Path) -> None:  # noqa: F811
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(page_path.as_uri())
    mark = opened.query_selector('.figure svg path[data-variant="bnb-nf4"]')
    mark.scroll_into_view_if_needed()
    mark.hover()
    assert "bnb-nf4" in opened.inner_text("#tip")
    assert "density" in opened.inner_text("#tip")
    assert "points [" in opened.inner_text("#tip")
    opened.mouse.move(0, 0)
    opened.evaluate("document.querySelector('.figure:has(path[data-variant=\"bnb-nf4\"])').focus()")
    opened.keyboard.press("ArrowRight")
    assert opened.is_visible("#tip")
    first = opened.inner_text("#tip strong")
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text("#tip strong") != first
    opened.keyboard.press("Escape")
    assert not opened.is_visible("#tip")
    opened.close()


@pytest.mark.slow
def test_a_study_without_bits_per_byte_has_accuracy_charts_and_no_column_of_dashes(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    scored = [
        one.model_copy(update={"scores": [score.model_copy(update={"bits_per_byte": None}) for score in one.scores]})
        for one in studies.quickstart().variants
    ]
    page = browser.new_page()
    page.goto(html.write(studies.study(scored), tmp_path).as_uri())
    assert not page.query_selector('table.verdicts [data-col="bpb"]')
    assert page.query_selector('section[aria-labelledby="size"] svg[aria-label^="Accuracy against"]')
    page.close()


def test_tables_of_three_hardware_profiles_fit_a_laptop_screen(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With the longest name of a kernel, and an interval below each ratio."""
    study = studies.with_failure()
    ratios = {name: studies.interval(0.9876, 0.2) for name in studies.HARDWARE}
    slow = "compressed-tensors, unpacked at the first use"
    variants = [
        one.model_copy(
            update={
                "timing": one.timing and one.timing.model_copy(update={"weights": slow}),
                "comparisons": [two.model_copy(update={"time_ratio": ratios}) for two in one.comparisons],
            }
        )
        for one in study.variants
    ]
    monkeypatch.setattr(html, "figures", lambda _: Figures())
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(html.write(study.model_copy(update={"variants": variants}), tmp_path).as_uri())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    wide = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.getAttribute('aria-label'))"
    assert page.query_selector(".scroll[aria-label='Inference times']")
    assert page.eval_on_selector_all(".scroll", wide) == []
    page.close()
