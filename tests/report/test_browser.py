"""The page in a real browser: no network, no error, and charts that are really drawn."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from compresslab.report import tables
from compresslab.report.html import write

from . import studies

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
# `make test` installs Chromium where it may and says so where it may not; a user without a browser must still pass the tests.
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        flags = ["--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])]
        running = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield running
        running.close()


def colours(png: bytes) -> int:
    """How many different pixel values a screenshot holds (8-bit RGB or RGBA, as Chromium writes them)."""
    width, height, _, kind = struct.unpack(">IIBB", png[16:26])
    data, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    raw, step = zlib.decompress(data), {2: 3, 6: 4}[kind]
    line = width * step + 1
    previous, seen = bytearray(line - 1), set()
    for row in range(height):
        how, current = raw[row * line], bytearray(raw[row * line + 1 : (row + 1) * line])
        for index in range(line - 1):
            left = current[index - step] if index >= step else 0
            up, corner = previous[index], previous[index - step] if index >= step else 0
            guess = left + up - corner
            nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            current[index] = (current[index] + (0, left, up, (left + up) // 2, nearest)[how]) & 255
        seen.update(bytes(current[index : index + 3]) for index in range(0, line - 1, step))
        previous = current
    return len(seen)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_opens_from_disk_without_network_or_errors(browser: Any, page_path: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(page_path.as_uri())
    assert requests == [page_path.as_uri()]
    assert problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_charts_are_drawn_and_not_only_present(browser: Any, page_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page.goto(page_path.as_uri())
    charts = page.query_selector_all("main svg")
    assert len(charts) >= 15
    for chart in charts:
        box = chart.bounding_box()
        assert box["width"] > 150
        assert box["height"] > 60
    # One of each kind, cut small: reading pixels in plain Python is slow.
    for place in (0, 1, 4, -1):
        charts[place].scroll_into_view_if_needed()
        box = charts[place].bounding_box()
        png = page.screenshot(clip={"x": box["x"], "y": box["y"], "width": min(box["width"], 320), "height": min(box["height"], 130)})
        assert colours(png) > 12
    page.close()


@pytest.fixture
def opened(browser: Any, page_path: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_path.as_uri())
    yield page
    page.close()


def rows(page: Any) -> list[str]:
    """The variants that the verdict table shows."""
    return [row.get_attribute("data-variant") for row in page.query_selector_all("table.verdicts tbody tr") if row.is_visible()]


def test_a_click_on_a_card_shows_its_lineage_alone_and_escape_shows_all(opened: Any) -> None:
    everything = rows(opened)
    opened.click('g.node[data-variant="depth-24-healed"]')
    assert rows(opened) == ["base", "depth-24", "depth-24-healed", "depth-24-healed-nf4"]
    assert "4 of 8 variants: depth-24-healed and its lineage" in opened.inner_text("#shown")
    chains = [one.get_attribute("data-chain") for one in opened.query_selector_all("[data-chain]") if one.is_visible()]
    assert chains
    assert all("depth-24" in chain for chain in chains)
    # marks of charts fade, since a chart has no rows to take out
    assert float(opened.evaluate("getComputedStyle(document.querySelector('path[data-variant=\"bnb-nf4\"]')).opacity")) < 0.2
    opened.keyboard.press("Escape")
    assert rows(opened) == everything


def test_the_filters_work_with_the_keyboard_alone(opened: Any) -> None:
    opened.keyboard.press("/")
    opened.keyboard.type("NF4")
    assert rows(opened) == ["bnb-nf4", "depth-24-healed-nf4"]
    opened.keyboard.press("Escape")
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowDown")
    raised = rows(opened)
    assert raised
    assert all("raised" in opened.inner_text(f'table.verdicts tr[data-variant="{name}"]') for name in raised)
    opened.keyboard.press("Escape")
    opened.focus('g.node[data-variant="bnb-nf4"]')
    opened.keyboard.press("Enter")
    assert rows(opened) == ["base", "bnb-nf4"]
    assert opened.get_attribute('g.node[data-variant="bnb-nf4"]', "aria-pressed") == "true"


def test_every_table_is_handed_out_as_csv_and_json(opened: Any, tmp_path: Path) -> None:
    for name, make in tables.TABLES.items():
        frame = make(studies.with_failure())
        for form in ("CSV", "JSON"):
            with opened.expect_download() as download:
                opened.click(f'button[data-table="{name}"][data-form="{form}"]')
            assert download.value.suggested_filename == f"{name}.{form.lower()}"
            download.value.save_as(tmp_path / "table")
            read = pd.read_csv(tmp_path / "table") if form == "CSV" else pd.DataFrame(json.loads((tmp_path / "table").read_text()))
            if len(frame):
                assert list(read.columns) == list(frame.columns)
            assert len(read) == len(frame)
            opened.wait_for_timeout(150)  # Chromium drops what a frame downloads beyond ten a second, without a word


def test_a_cell_that_begins_like_a_formula_is_a_text_in_csv(browser: Any, tmp_path: Path) -> None:
    """Numbers stay numbers, negative ones, too."""
    study = studies.quickstart()
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain"]
    renamed = [variant.model_copy(update={"name": name}) for variant, name in zip(study.variants, names, strict=False)]
    page = browser.new_page(accept_downloads=True)
    page.goto(write(study.model_copy(update={"variants": renamed}), tmp_path / "page").as_uri())
    with page.expect_download() as download:
        page.click('button[data-table="variants"][data-form="CSV"]')
    download.value.save_as(tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", dtype={"variant": str})
    assert read["variant"].tolist() == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "plain"]
    differences = tables.task_differences(study)
    with page.expect_download() as download:
        page.click('button[data-table="task_differences"][data-form="CSV"]')
    download.value.save_as(tmp_path / "differences.csv")
    numbers = pd.read_csv(tmp_path / "differences.csv")["difference_low"]
    assert (numbers < 0).any()
    assert str(numbers.dtype) == str(differences["difference_low"].dtype) == "float64"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("written", ["page_path", "compared_path"])
def test_axe_finds_no_violation(browser: Any, request: pytest.FixtureRequest, written: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.goto(request.getfixturevalue(written).as_uri())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    found = Axe().run(page).response["violations"]
    page.close()
    assert [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found] == []


def test_a_page_of_two_hundred_variants_is_whole_and_draws_in_time(browser: Any, tmp_path: Path) -> None:
    path = write(studies.many(200, tasks=[f"task-{number}" for number in range(10)]), tmp_path)
    assert path.stat().st_size < 12_000_000
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    assert len(rows(page)) == 201
    page.fill("#search", "depth-19")
    assert len(rows(page)) == 11
    page.close()
