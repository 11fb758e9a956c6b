"""The report's page: bytes, seconds to write it, and seconds until a browser has drawn it (best of some loads).

    python benchmarks/page.py [STUDY.json ...] [--chromium PATH]

Without records: one of 200 variants on ten tasks, as the report's tests make it. Needs playwright and Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

HOME = Path(__file__).parent.parent
sys.path[:0] = [str(HOME)]

from compresslab.records import StudyRecord  # noqa: E402
from compresslab.report.html import write  # noqa: E402
from tests.report import studies  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOADS = 5
# Drawn: two frames after everything is loaded and the page's script has run.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def seconds_to_draw(browser: Any, page_path: Path) -> float:
    """From the request of the page to its second frame."""
    best = float("inf")
    for _ in range(LOADS):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(page_path.as_uri())
        best = min(best, page.evaluate(DRAWN) / 1000)
        page.close()
    return best


def main() -> None:
    """Parse, write, load, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path)
    parser.add_argument(
        "--chromium", default=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    )
    given = parser.parse_args()
    records = [StudyRecord.model_validate_json(path.read_bytes()) for path in given.studies]
    records = records or [studies.many(200, tasks=[f"task-{number}" for number in range(10)])]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"])
        for number, record in enumerate(records):
            began = time.perf_counter()
            page = write(record, Path(folder) / str(number))
            written = time.perf_counter() - began
            drawn = seconds_to_draw(browser, page)
            size = page.stat().st_size / 1e6
            print(f"{record.study}: {len(record.variants)} variants, {size:.2f} MB, written in {written:.1f} s, drawn in {drawn:.2f} s")
        browser.close()


if __name__ == "__main__":
    main()
