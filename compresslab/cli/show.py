"""`compresslab show`: prints the record of a study or of one variant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli import completion
from compresslab.cli.options import ReportsPath
from compresslab.printable import printable
from compresslab.suggestions import suggest

if TYPE_CHECKING:
    from compresslab.records import StudyRecord, VariantRecord


def show(
    study: Annotated[str, typer.Argument(help="A study's name.", autocompletion=completion.studies)],
    variant: Annotated[
        str | None, typer.Argument(help="One of its variants; without it, the verdict table.", autocompletion=completion.variants)
    ] = None,
    reports: ReportsPath = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show a study's verdicts, or how one variant was made and what it scored, from its last report. `--json` has all that is recorded.

    Example: compresslab show smollm2-quickstart nf4
    """
    from compresslab.cli.run import summary
    from compresslab.cli.tables import console

    if variant is None:
        record = study_of(study, reports)
        if as_json:
            typer.echo(printable(record.model_dump_json(indent=2)))
        else:
            summary(console(), record)
        return
    record, variant_record = variant_of(study, variant, reports)
    if as_json:
        typer.echo(printable(variant_record.model_dump_json(indent=2)))
        return
    from compresslab.cli.variant_in_words import show_variant

    show_variant(record, variant_record)


def study_of(study: str, reports: Path) -> StudyRecord:
    """The record of a study's last report.

    Raises:
        BadInput: there is none, or it is damaged or of another version.
    """
    from compresslab.errors import BadInput
    from compresslab.records import StudyRecord, read_record

    path = reports / study / "study.json"
    if not path.is_file():
        studies = sorted(folder.parent.name for folder in reports.glob("*/study.json"))
        raise BadInput(
            f"no report of a study {study!r} in {reports}; there are: {', '.join(studies) or 'none'};{suggest(study, studies)}".rstrip(";")
        )
    return read_record(path, StudyRecord, "`compresslab report RECIPE` writes it again")


def is_published(record: StudyRecord) -> bool:
    """Whether a study's scores were read from tables, so that no model was run and none is in a store."""
    return any(step.method == "published" for variant in record.variants for step in variant.steps)


def is_imported(record: StudyRecord) -> bool:
    """Whether a study was imported from lm-eval's files, so that no model was run here and none is in a store."""
    return any("evaluated" in step.details for variant in record.variants for step in variant.steps)


def variant_of(study: str, variant: str, reports: Path) -> tuple[StudyRecord, VariantRecord]:
    """The record of a study and that of one of its variants.

    Raises:
        BadInput: there is no such study or variant.
    """
    from compresslab.errors import BadInput

    record = study_of(study, reports)
    names = [entry.name for entry in record.variants]
    if variant not in names:
        raise BadInput(f"{study} has no variant {variant!r}; it has: {', '.join(names)};{suggest(variant, names)}".rstrip(";"))
    return record, record.variants[names.index(variant)]
