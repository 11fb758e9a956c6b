"""The page: self-contained, whole whatever is missing, and safe whatever the names are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from compresslab.errors import RunFailed
from compresslab.records import Failure, Interval, StudyRecord
from compresslab.report import tables
from compresslab.report.html import render, write

from . import studies

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "{{ 7 * 7 }}",
    "نموذج-مضغوط",
    "🦙 nf4 🚀",
    "x" * 200,
    "]]><!--",
    "a'); //",
]


class Tags(HTMLParser):
    """Collects every tag and its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.found


def hostile() -> StudyRecord:
    root = studies.base(name=HOSTILE[0], tasks=[*studies.TASKS, "<b>task</b>"])
    made = [root]
    for place, name in enumerate(HOSTILE[1:]):
        last = studies.step("quantize", name, 134.5e6 / (place + 2), 16)
        made.append(studies.child(made[-1], root, name, last, 1 + 0.05 * place, 0.9, measured=1.1))
    return studies.study(made, study=HOSTILE[0], question=HOSTILE[1], base=HOSTILE[0], recipe=HOSTILE[0])


def test_write_puts_page_and_record_and_nothing_else(page_path: Path) -> None:
    assert page_path.name == "index.html"
    assert sorted(path.name for path in page_path.parent.iterdir()) == ["index.html", "report.md", "study.json"]
    assert StudyRecord.model_validate_json((page_path.parent / "study.json").read_text(encoding="utf-8")) == studies.with_failure()


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ({}, "<dt>Lock</dt><dd>every package as locked</dd>"),
        ({"peft": ("0.21.2", "0.20.0"), "<b>": ("1", "2")}, "<dt>Lock</dt><dd>peft 0.21.2 → 0.20.0, &lt;b&gt; 1 → 2</dd>"),
        (None, None),
    ],
)
def test_the_page_says_which_packages_differ_from_the_lock(differing: dict[str, tuple[str, str]] | None, expected: str | None) -> None:
    study = studies.quickstart()
    page = render(study.model_copy(update={"provenance": study.provenance.model_copy(update={"differing": differing})}))
    assert expected in page if expected else "<dt>Lock</dt>" not in page


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    for tag, attributes in tags(page):
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_the_only_script_that_may_run_is_the_pages_own(page: str) -> None:
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)
    assert [attributes.strip() for attributes, _ in scripts] == ['type="application/json" id="tables"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; " in page


def test_the_tables_inside_the_page_are_those_of_the_library(page: str) -> None:
    held = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL)[0])
    assert list(held["tables"]) == list(tables.TABLES)
    for name, make in tables.TABLES.items():
        frame = make(studies.with_failure())
        assert held["tables"][name]["columns"] == list(frame.columns)
        assert len(held["tables"][name]["rows"]) == len(frame)
    assert held["lineage"][:2] == [["base", ""], ["bnb-nf4", "base"]]


def test_every_chart_is_well_formed_and_ids_are_unique(page: str) -> None:
    charts = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(charts) >= 15
    for chart in charts:
        ElementTree.fromstring(chart)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_hostile_names_are_text_and_never_markup() -> None:
    page = render(hostile())
    found = tags(page)
    assert not {"img", "b"} & {tag for tag, _ in found}
    assert [attributes for tag, attributes in found if tag == "script"] == [{"type": "application/json", "id": "tables"}, {}]
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)
    assert "{{ 7 * 7 }}" in page
    for chart in re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(chart)


def test_the_answer_and_every_verdict_stand_in_words(page: str) -> None:
    assert "No variant is denser than the base by parameters: all 5 are less dense" in page
    for variant in studies.quickstart().variants[1:]:
        assert variant.name in page
    assert page.count("▼</span> lowered") >= 4
    assert page.count("▲</span> raised") >= 2


def test_a_failed_variant_is_shown_with_its_cause_and_without_its_parents_size(page: str) -> None:
    row = re.search(r'<tr role="row" class="failed"[^>]*>.*?</tr>', page, flags=re.DOTALL)
    assert row is not None
    assert "most likely out of memory" in row.group()
    assert "134.5 M" not in row.group()
    assert "1 part of this study failed or was skipped" in page


def test_a_failed_measurement_leaves_the_verdict_in_place() -> None:
    whole = studies.quickstart()
    last = whole.variants[1].model_copy(
        update={"timing": None, "failures": [Failure(node="measure:bnb-nf4", cause="No kernel for this CPU.")]}
    )
    page = render(whole.model_copy(update={"variants": [whole.variants[0], last]}))
    assert "No kernel for this CPU." in page
    assert 'class="lowered"><span aria-hidden="true">▼</span> lowered' in page


def test_variants_without_density_timing_or_scores_leave_the_page_whole() -> None:
    whole = studies.quickstart()
    bare = [variant.model_copy(update={"density": None, "timing": None, "comparisons": [], "costs": {}}) for variant in whole.variants]
    page = render(whole.model_copy(update={"variants": bare}))
    assert "none has a density to compare" in page
    assert "no density was computed" in page
    unscored = [variant.model_copy(update={"scores": [], "steps": []}) for variant in bare]
    assert "No variant has bits per byte or accuracy" in render(whole.model_copy(update={"variants": unscored}))


def test_a_study_of_the_base_alone_and_an_empty_one_are_pages_too() -> None:
    assert "no compressed variant" in render(studies.study([studies.base()]))
    assert "no compressed variant" in render(studies.study([]))


def test_infinite_and_degenerate_intervals_are_drawn() -> None:
    whole = studies.quickstart()
    odd = [
        Interval(value=0.5, low=0.0, high=float("inf")),
        Interval(value=float("nan"), low=float("nan"), high=float("nan")),
        Interval(value=0.1, low=0.0, high=0.1, bound="<", extrapolated=True),
        Interval(value=1e9, low=1e-12, high=1e12),
    ]
    variants = list(whole.variants)
    for place, ratio in enumerate(odd, start=1):
        comparisons = [one.model_copy(update={"ratio": ratio, "density_days": ratio}) for one in variants[place].comparisons]
        variants[place] = variants[place].model_copy(update={"comparisons": comparisons})
    page = render(whole.model_copy(update={"variants": variants}))
    assert "&lt; 0.1" in page
    assert "∞" in page
    assert "NaN" not in page


def test_unnamed_steps_are_subdued(page: str) -> None:
    assert re.search(r'<g class="node faint" data-variant="width-75/1"><title>width-75/1</title>', page)
    assert page.count('<tr role="row" class="faint"') == 1


def test_modelled_gain_that_was_not_measured_is_marked(page: str) -> None:
    assert page.count("⚠ modelled faster, measured slower") == 2


@pytest.mark.slow
def test_sixty_variants_fit_in_one_page() -> None:
    page = render(studies.many(60))
    assert len(page) < 3_000_000
    assert page.count('<g class="node named"') == 60


def test_the_same_record_gives_the_same_page(page: str) -> None:
    assert render(studies.with_failure()) == page


def test_a_write_that_fails_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write(studies.study([]), tmp_path)
    before = page.read_text(encoding="utf-8")

    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunFailed, match=rf"could not be written into {re.escape(str(tmp_path))}: no space is left on its disk.*--reports"):
        write(studies.study([], question="Another?"), tmp_path)
    assert page.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "report.md", "study.json"]


def test_characters_that_reverse_a_text_are_shown_as_escapes() -> None:
    study = studies.quickstart(question="is \u202eegral it \x1b[31m?")
    page = render(study)
    assert "is \\u202eegral it \\u001b[31m?" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
