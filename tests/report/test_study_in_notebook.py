"""A study in a notebook: its verdicts with a chart, one line as its repr, its tables as frames."""

from __future__ import annotations

import base64
import html.parser
import re
from pathlib import Path

import pandas as pd
import pytest

import compresslab
from compresslab.records import Failure, StudyRecord
from compresslab.report import tables, words
from compresslab.report.charts.drawing import Drawing, NotDrawnError
from compresslab.report.html import replace
from compresslab.studies import notebook
from compresslab.studies.study import Study

from . import studies

HOSTILE = "<script>alert(1)</script>\u202e\n"


class Page(html.parser.HTMLParser):
    """The tags of a page and the texts of its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += data


def undrawn(*_: object) -> str:
    raise NotDrawnError("no <library>")


@pytest.mark.slow
def test_a_study_is_its_verdicts_with_a_chart() -> None:
    study = Study.of(studies.quickstart())
    shown = study._repr_html_()
    page = Page(shown)
    assert {"script", "style", "link", "svg"}.isdisjoint(page.tags)
    for variant, row in zip(study.variants, page.rows[1:], strict=True):
        assert variant.name in row
        if comparison := next((one for one in variant.comparisons if one.against == variant.parent), None):
            interval, verdict = comparison.headline
            assert f"{words.SYMBOLS[verdict]} {verdict} {words.place(comparison)}" in row
            assert words.span(interval, 2) in row
    (address,) = re.findall(r'<img [^>]*src="data:image/svg\+xml;base64,([^"]+)"', shown)
    svg = base64.b64decode(address).decode()
    assert "var(--" not in svg, "an image knows nothing of the page's colours"
    assert all(variant.name in svg for variant in study.variants if variant.parent)


def test_a_chart_that_cannot_be_drawn_leaves_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawing, "svg", undrawn)
    shown = Study.of(studies.quickstart())._repr_html_()
    assert "<img" not in shown
    assert "The chart could not be drawn: no &lt;library&gt;" in shown


def test_names_and_causes_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawing, "svg", undrawn)
    root = studies.base(name=HOSTILE)
    failed = root.model_copy(update={"name": "x", "parent": HOSTILE, "failures": [Failure(node="n", cause=HOSTILE)], "density": None})
    study = Study.of(studies.study([root, failed], study=HOSTILE, question=HOSTILE))
    shown = study._repr_html_()
    assert "script" not in Page(shown).tags
    assert "\u202e" not in shown
    assert "✕ failed: &lt;script&gt;" in shown
    assert repr(study).isprintable(), "one line, and nothing in it acts on a terminal"


def test_many_variants_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawing, "svg", undrawn)
    monkeypatch.setattr(notebook, "MOST_ROWS", 2)
    study = Study.of(studies.quickstart())
    shown = study._repr_html_()
    assert len(Page(shown).rows) == 3
    assert f"and {len(study.variants) - 2} more variants" in shown


def test_the_repr_counts_the_verdicts() -> None:
    study = Study.of(studies.quickstart())
    verdicts = tables.variants(study)["verdict"].value_counts()
    said = ", ".join(f"{verdicts[word]} {word}" for word in ("raised", "lowered", "inconclusive") if word in verdicts)
    assert repr(study) == str(study) == f"<Study {study.study!r}: {len(study.variants)} variants; {said}>"
    assert repr(Study.of(studies.study([studies.base()], study="one"))) == "<Study 'one': 1 variant; no verdict>"


def test_a_frame_is_the_table_of_that_name() -> None:
    study = Study.of(studies.quickstart())
    pd.testing.assert_frame_equal(study.frame(), tables.variants(study))
    for name, table in tables.TABLES.items():
        pd.testing.assert_frame_equal(study.frame(name), table(study))
    with pytest.raises(compresslab.BadInput, match="no table 'score'; did you mean 'scores'\\? there are: variants, "):
        study.frame("score")


def test_a_study_that_is_read_is_the_record_that_was_written(tmp_path: Path) -> None:
    record = studies.quickstart()
    replace(tmp_path / "study.json", words.record_json(record))
    study = compresslab.read_study(tmp_path)
    assert isinstance(study, compresslab.Study)
    assert StudyRecord(**dict(study)) == record
