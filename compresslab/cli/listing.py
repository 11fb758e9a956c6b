"""`compresslab ls`: lists the studies of a store and of the reports, and their variants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from compresslab.cli.options import AsJson, ReportsPath, StorePath, count_of, size, store_root

if TYPE_CHECKING:
    from compresslab.records import StudyNote
    from compresslab.store.store import Store

PUBLISHED = "published scores; no model"
IMPORTED = "imported scores; no model"
JOINED = " + "
"""Between the names of the studies on one page of `compresslab compare`, which is no study of its own (`report.merge`)."""


def ls(store: StorePath = None, reports: ReportsPath = Path("reports"), as_json: AsJson = False) -> None:
    """List the studies that ran here, with their variants, sizes and folders, and those of published or imported scores that have a report.

    Example: compresslab ls
    """
    from compresslab.store.store import Store

    result_store = Store(store_root(store))
    notes = result_store.notes()
    rows = [row for study, note in notes.items() for row in _of_the_store(study, note, result_store)]
    rows += _of_the_reports(reports, set(notes))
    for broken in result_store.broken_notes():
        typer.echo(f"warning: {broken}", err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        first = "`compresslab init --from quickstart` writes a first recipe"
        typer.echo(f"no study has run in {result_store.root} yet, and none of published scores is in {reports}; {first}")
        return
    from compresslab.cli.tables import console, show_table, table

    screen = console()
    for study in dict.fromkeys(row["study"] for row in rows):
        own = [row for row in rows if row["study"] == study]
        cells = [(row["variant"], _parameters(row), _stored(row), _where(row)) for row in own]
        made = table(("variant", "N", "stored", "model folder"), cells, right=("N", "stored"), whole=("variant", "model folder"))
        show_table(screen, made, f"{study}: {count_of(len(own), 'variant')}, last run {own[0]['finished'] or 'not finished'}")


def _of_the_store(study: str, note: StudyNote, store: Store) -> Iterator[dict[str, Any]]:
    from compresslab.recipe.steps import BASE
    from compresslab.records import StepRecord

    # Notes are sorted by name, and the base comes before what was made from it.
    for name, keys in sorted(note.variants.items(), key=lambda item: item[0] != BASE):
        key = keys.get("model", "")
        cached = bool(key) and store.occupied(key)
        record = store.find(key, StepRecord) if cached else None
        yield {
            "study": study,
            "variant": name,
            "parameters": record.size.counted if record else None,
            "stored_bytes": record.size.stored_bytes if record else None,
            "model": str(store.model(key)) if record else None,
            "problem": store.problem(key, StepRecord) if cached else "",
            "finished": note.finished,
            "published": False,
            "imported": False,
        }


def _of_the_reports(reports: Path, known: set[str]) -> Iterator[dict[str, Any]]:
    """The variants of studies of published or imported scores, of which no store knows."""
    from compresslab.cli.show import is_imported, is_published
    from compresslab.errors import BadInput
    from compresslab.records import StudyRecord, read_record

    for path in sorted(reports.glob("*/study.json")):
        if path.parent.name in known:
            continue
        try:
            record = read_record(path, StudyRecord, "`compresslab report RECIPE` writes it again")
        except BadInput as error:
            typer.echo(f"warning: {error}", err=True)
            continue
        for variant in record.variants if (is_published(record) or is_imported(record)) and JOINED not in record.study else ():
            yield {
                "study": record.study,
                "variant": variant.name,
                "parameters": variant.size.counted if variant.size else None,
                "stored_bytes": variant.size.stored_bytes if variant.size else None,
                "model": None,
                "problem": "",
                "finished": record.provenance.finished,
                "published": is_published(record),
                "imported": is_imported(record),
            }


def _parameters(row: dict[str, Any]) -> str:
    from compresslab.report.words import count

    return count(row["parameters"]) if row["parameters"] else "-"


def _stored(row: dict[str, Any]) -> str:
    return size(row["stored_bytes"]) if row["stored_bytes"] else "-"


def _where(row: dict[str, Any]) -> str:
    """The model's folder, or why there is none."""
    if row["published"]:
        return PUBLISHED
    if row["imported"]:
        return IMPORTED
    if row["problem"]:
        return f"cannot be used, {row['problem']}; the next run makes it again"
    return row["model"] or "not made"
