"""One written page for all tests of the report, because drawing it is what takes time."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.report.html import write
from compresslab.report.merge import differences, merged

from . import studies


@pytest.fixture(scope="session")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the synthetic quickstart with one failed variant."""
    return write(studies.with_failure(), tmp_path_factory.mktemp("report") / "reports" / "quickstart")


@pytest.fixture(scope="session")
def page(page_path: Path) -> str:
    return page_path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def compared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that `compare` writes of two studies with other recipes and benchmarks, one with a failed variant, one unfinished."""
    one = studies.resting_on(["MMLU"], studies.with_failure().model_copy(update={"study": "one"}))
    other = studies.resting_on(["MMLU", "PIQA"], studies.unfinished(study="other", recipe="study: other\nbase: ./model\n"))
    pair = [one, other]
    return write(merged(pair), tmp_path_factory.mktemp("compared"), differences(pair))
