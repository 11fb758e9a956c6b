"""`reports/index.html`: every study of a folder with its answer and its verdicts, to sort and to search."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from compresslab.errors import BadInput
from compresslab.records import StudyRecord, UnreadableRecord, read_record
from compresslab.report import words
from compresslab.report.answer import StudyAnswer, answer
from compresslab.report.extent.altered import altered
from compresslab.report.extent.basis import basis
from compresslab.report.facts import comparison_with, is_pending
from compresslab.report.html import page_parts, replace, script_hash, templates_of_pages, writing
from compresslab.report.overwriting import GENERATOR_TAG, check_file

WRITE_AGAIN = "`compresslab report RECIPE` writes it again"


class IndexEntry(NamedTuple):
    """A study in the list. Without a record, `problem` is the reason."""

    folder: str
    study: StudyRecord | None
    answer: StudyAnswer | None
    verdicts: dict[str, int]
    problem: str = ""
    altered: str = ""
    basis: str = ""
    pending: int = 0


def write_index(reports: Path) -> Path:
    """Write `index.html` over all `<folder>/study.json` below `reports`, the last finished first; returns its path.

    An existing page that compresslab did not write is not overwritten.

    Raises:
        RunFailed: nothing can be written there.
    """
    page = reports / "index.html"
    try:
        check_file(page, GENERATOR_TAG, "")
    except BadInput:
        return page
    entries = [_entry(path, _state(path)) for path in sorted(reports.glob("*/study.json"))]
    entries.sort(key=lambda entry: entry.study.provenance.finished if entry.study else "", reverse=True)
    css, script = page_parts("index.js", "sort.js")
    largest = max((sum(entry.verdicts.values()) for entry in entries), default=0)
    text = (
        templates_of_pages()
        .get_template("index.html.j2")
        .render(
            entries=entries, css=css, script=Markup(script), script_hash=script_hash(script), symbols=words.SYMBOLS, maximum=max(largest, 1)
        )
    )
    with writing(reports):
        replace(page, text)
    return page


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file was written anew; `None` for one that cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=64)
def _entry(path: Path, state: tuple[int, int, int] | None) -> IndexEntry:
    """The entry of a record. With the `state` of its file as a second key, a command that writes many pages reads each record once."""
    del state
    folder = path.parent.name
    try:
        study = read_record(path, StudyRecord, WRITE_AGAIN)
    except UnreadableRecord as error:
        return IndexEntry(folder, None, None, {}, f"{error.problem}; {WRITE_AGAIN}")
    verdicts: Counter[str] = Counter(
        comparison.headline[1]
        for variant in study.variants
        if variant.parent and (comparison := comparison_with(variant, "parent")) is not None and comparison.ratio is not None
    )
    pending = sum(is_pending(variant) for variant in study.variants)
    counted = {verdict: verdicts[verdict] for verdict in words.SYMBOLS if verdicts[verdict]}
    return IndexEntry(folder, study, answer(study), counted, altered=altered(study).sentence, basis=basis(study), pending=pending)
