"""`compresslab compare`: several studies on one page."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli import completion
from compresslab.cli.options import ReportsPath
from compresslab.printable import printable

if TYPE_CHECKING:
    from compresslab.records import StudyRecord

MAX_NAME_LENGTH = 120  # of the report's folder


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Reported studies: names, folders or study.json files of reports.",
            metavar="RUN...",
            show_default=False,
            autocompletion=completion.studies,
        ),
    ] = None,
    across: Annotated[
        list[Path] | None, typer.Option("--across", help="Compare the studies of these recipes. May be given several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to write.  \\[default: in the reports, after the studies]", show_default=False)
    ] = None,
    reports: ReportsPath = Path("reports"),
    rank: Annotated[
        bool, typer.Option("--rank", help="Name the highest of all variants, also if they rest on different benchmarks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the joint record as JSON, and write nothing.")] = False,
) -> None:
    """Put several reported studies, or several runs of one, on one page, with what their recipes set differently.

    A run with other settings than its recipe has a page beside that of the recipe: compresslab run RECIPE --limit 50

    Example: compresslab compare smollm2-quickstart smollm2-quickstart~items-50
    """
    from compresslab.cli.run import summary
    from compresslab.cli.tables import console
    from compresslab.errors import BadInput
    from compresslab.report.html import write
    from compresslab.report.index import write_index
    from compresslab.report.merge import differences, merged
    from compresslab.report.overwriting import check_page

    records = [_record(run, reports) for run in runs or ()]
    records += [_of_recipe(path, reports) for path in across or ()]
    if len(records) < 2:
        raise BadInput(f"{len(records)} of at least two studies to compare; name more, or recipes with --across")
    for place, one in enumerate(records):
        if one in records[:place]:
            raise BadInput(f"{one.study} is named twice, as one and the same run; its variants would count twice, so name it once")
    studies = _numbered(records)
    joint = merged(studies, rank=rank)
    if as_json:
        typer.echo(printable(joint.model_dump_json(indent=2)))
        return
    folder_name = "+".join(study.study for study in studies).replace("/", "-")
    if len(folder_name) > MAX_NAME_LENGTH:  # the checksum keeps the names of different studies different
        folder_name = f"{folder_name[:MAX_NAME_LENGTH]}-{zlib.crc32(folder_name.encode()):08x}"
    folder = out or reports / folder_name
    check_page(folder, joint.study)
    page = write(joint, folder, differences(studies))
    if folder.parent == reports:
        write_index(reports)
    summary(console(), joint)
    for caveat in joint.caveats:
        typer.echo(printable(caveat))
    typer.echo(printable(f"Report: {page}"))


def _record(run: str, reports: Path) -> StudyRecord:
    """A study's record by its name, its report's folder or the path of the record.

    Raises:
        BadInput: there is none of these, or it is of another version.
    """
    from compresslab.cli.show import study_of

    path = Path(run)
    if path.name == "study.json":
        path = path.parent
    if (path / "study.json").is_file() and not (reports / run / "study.json").is_file():
        return study_of(path.name, path.parent)
    return study_of(run, reports)


def _of_recipe(path: Path, reports: Path) -> StudyRecord:
    from compresslab.cli.show import study_of
    from compresslab.errors import BadInput
    from compresslab.recipe.load import load

    name = load(path).study
    try:
        return study_of(name, reports)
    except BadInput as error:
        raise BadInput(f"{path}: {error}; `compresslab run {path}` makes it") from error


def _numbered(studies: list[StudyRecord]) -> list[StudyRecord]:
    """The studies, with numbers in the names of several runs of one study."""
    names = [study.study for study in studies]
    numbered_studies = []
    for place, study in enumerate(studies):
        before = names[:place].count(study.study)
        numbered = f"{study.study} ({before + 1})" if names.count(study.study) > 1 else study.study
        numbered_studies.append(study.model_copy(update={"study": numbered}))
    return numbered_studies
