"""Records in a notebook: every field told, nothing of a name taken as markup."""

from __future__ import annotations

import html.parser

from compresslab.records import Interval, StudyRecord

from . import studies


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_a_study_shows_its_variants_as_a_table() -> None:
    study = studies.quickstart()
    shown = study._repr_html_()
    for name in StudyRecord.model_fields:
        assert f">{name}</th>" in shown
    for variant in study.variants:
        assert f"<td>{variant.name}</td>" in shown


def test_an_interval_in_a_table_is_a_value_with_its_ends() -> None:
    density = studies.quickstart().variants[1].density
    assert density is not None
    assert density.params is not None
    flagged = density.model_copy(update={"params": Interval(value=0.5, low=0.4, high=float("inf"), extrapolated=True)})
    assert "0.5 [0.4, inf] <abbr title='extrapolated'>†</abbr>" in flagged._repr_html_()
    assert "&lt;0.5<" in density.model_copy(update={"params": Interval(value=0.5, low=0, high=1, bound="<")})._repr_html_()


def test_names_are_text() -> None:
    hostile = "<script>alert(1)</script>"
    shown = studies.study([studies.base(name=hostile)], study=hostile, question=hostile)._repr_html_()
    parser = Tags()
    parser.feed(shown)
    assert "script" not in parser.found
    assert shown.count("&lt;script&gt;") >= 3
