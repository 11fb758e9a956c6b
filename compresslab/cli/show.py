"""`compresslab show`: all that is known of a study or of one variant."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer

from compresslab.cli.options import ReportsPath


def show(
    study: Annotated[str, typer.Argument(help="A study's name.")],
    variant: Annotated[str | None, typer.Argument(help="One of its variants; without it, the verdict table.")] = None,
    reports: ReportsPath = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show a study's verdicts, or everything that is recorded of one variant, from its last report."""
    from pydantic import ValidationError
    from rich.console import Console

    from compresslab.cli.run import summary
    from compresslab.errors import BadInput
    from compresslab.records import StudyRecord

    path = reports / study / "study.json"
    if not path.is_file():
        there = sorted(folder.parent.name for folder in reports.glob("*/study.json"))
        raise BadInput(f"no report of a study {study!r} in {reports}; there are: {', '.join(there) or 'none'}{_meant(study, there)}")
    try:
        record = StudyRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path} was not written by this version of compresslab; `compresslab report RECIPE` writes it again") from error
    if variant is None:
        if as_json:
            typer.echo(record.model_dump_json(indent=2))
        else:
            summary(Console(), record)
        return
    names = [entry.name for entry in record.variants]
    if variant not in names:
        raise BadInput(f"{study} has no variant {variant!r}; it has: {', '.join(names)}{_meant(variant, names)}")
    found = next(entry for entry in record.variants if entry.name == variant)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        Console().print_json(json.dumps(found.model_dump(mode="json", exclude_defaults=True)), indent=2)


def _meant(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
