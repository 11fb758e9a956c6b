"""`reports/index.html`: every study of a folder with its answer and its verdicts."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compresslab.records import StudyRecord, UnreadableRecord, read_record
from compresslab.report import words
from compresslab.report.answer import Answer, answer
from compresslab.report.facts import compared
from compresslab.report.html import replace

WRITE_AGAIN = "`compresslab report RECIPE` writes it again"
OURS = '<meta name="generator" content="compresslab">'


class Entry(NamedTuple):
    """A study as the list shows it. Without a record `problem` says why."""

    folder: str
    study: StudyRecord | None
    answer: Answer | None
    verdicts: dict[str, int]
    problem: str = ""


def write_index(reports: Path) -> Path:
    """Write `index.html` over all `<folder>/study.json` below `reports`, the last finished first; returns its path.

    A page that is there and was not written by compresslab is left as it is.
    """
    page = reports / "index.html"
    if page.is_file() and OURS not in page.read_text(encoding="utf-8", errors="replace"):
        return page
    found = [_entry(path) for path in sorted(reports.glob("*/study.json"))]
    found.sort(key=lambda entry: entry.study.provenance.finished if entry.study else "", reverse=True)
    environment = Environment(
        loader=PackageLoader("compresslab.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = (resources.files("compresslab.report") / "templates" / "study.css").read_text("utf-8")
    text = environment.get_template("index.html.j2").render(entries=found, css=Markup(css), symbols=words.SYMBOLS)
    replace(page, text)
    return page


def _entry(path: Path) -> Entry:
    folder = path.parent.name
    try:
        study = read_record(path, StudyRecord, WRITE_AGAIN)
    except UnreadableRecord as error:
        return Entry(folder, None, None, {}, f"{error.problem}; {WRITE_AGAIN}")
    found: Counter[str] = Counter(
        comparison.verdict
        for variant in study.variants
        if variant.parent and (comparison := compared(variant, "parent")) is not None and comparison.ratio is not None
    )
    return Entry(folder, study, answer(study), {word: found[word] for word in words.SYMBOLS if found[word]})
