"""The table of supported methods in the docs is that of the suite."""

from pathlib import Path

import pytest
from models.tiny import THIRD_PARTY_WARNINGS

from steps.contract_table import BEGIN, END, table

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def test_the_table_in_the_docs_is_the_suites():
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table(), "run `make contract` and put what it prints into docs/methods.md"
