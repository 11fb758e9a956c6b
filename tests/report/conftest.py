"""One written page for all tests of the report, because drawing it is what takes time."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.report.html import write

from . import studies


@pytest.fixture(scope="session")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the synthetic quickstart with one failed variant."""
    return write(studies.with_failure(), tmp_path_factory.mktemp("report") / "reports" / "quickstart")


@pytest.fixture(scope="session")
def page(page_path: Path) -> str:
    return page_path.read_text(encoding="utf-8")
