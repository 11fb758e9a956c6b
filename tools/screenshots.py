"""Pictures of the quickstart's page for the docs: `python -m tools.screenshots` writes them from its record, with Chromium and Pillow.

The page is written anew from the record, so that the pictures show the page of this code.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from compresslab.records import StudyRecord, read_record
from compresslab.report.html import write

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "reports" / "smollm2-quickstart" / "study.json"
# File, width and height in pixels.
PICTURES = (("report.png", 1280, 1500), ("report-400.png", 400, 1500), ("report-1920.png", 1920, 1400))


def write_pictures(folder: Path) -> list[Path]:
    """Write the pictures into `folder`; returns their paths."""
    found = [folder / name for name, *_ in PICTURES]
    browser = next((at for name in ("chromium", "chromium-browser", "google-chrome") if (at := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page = write(read_record(RECORD, StudyRecord, "`make quickstart` writes it again"), Path(scratch) / "page")
        flags = ["--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])]
        running = playwright.chromium.launch(executable_path=browser, args=flags)
        for path, (_, width, height) in zip(found, PICTURES, strict=True):
            view = running.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            view.goto(page.as_uri())
            view.screenshot(path=path)
            # A page has few colours. With a table of them the file takes a third.
            Image.open(path).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
        running.close()
    return found


if __name__ == "__main__":
    for picture in write_pictures(ROOT / "docs"):
        print(picture.relative_to(ROOT), picture.stat().st_size)
