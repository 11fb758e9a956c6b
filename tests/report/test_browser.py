"""The page in a real browser: no network, no error, and charts that are really drawn."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
# `make test` installs Chromium where it may and says so where it may not; a user without a browser must still pass the tests.
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")


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
