"""`compresslab import`: a study of models that lm-eval evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compresslab.cli.options import ReportsPath

Files = Annotated[
    list[str],
    typer.Argument(
        help="lm-eval's results_*.json of every model, NAME= before each to name it, and their samples_*.jsonl to pair them by item.",
        metavar="[NAME=]FILE...",
        show_default=False,
    ),
]
Parents = Annotated[
    list[str] | None,
    typer.Option("--parent", help="The model that the others were made from. CHILD=NAME for chains.", metavar="NAME"),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        help="A model's size: its folder, its config.json, or parameters; of a quantized one with the bits of a weight, as "
        "config.json@4.25 or 1.2e9@4.25. [default: the folder that lm-eval loaded]",
        metavar="NAME=SIZE",
        show_default=False,
    ),
]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="Only this task. May be given several times.", metavar="TASK", show_default=False)
]
Copies = Annotated[
    list[str] | None,
    typer.Option(
        "--copy",
        help="A copy of its parent's weights, pruned or quantized and not trained, so that r has no scatter between training runs.",
        metavar="NAME",
        show_default=False,
    ),
]
Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", help="A hardware profile, for modelled time.", metavar="PROFILE", show_default=False),
]
StudyName = Annotated[
    str | None, typer.Option("--study", help="The study's name.  [default: PARENT-imported]", metavar="NAME", show_default=False)
]
ReferenceName = Annotated[
    str | None,
    typer.Option(
        "--reference", help="A reference, or its .json file.  [default: the one that reads most of the tasks]", show_default=False
    ),
]


def import_results(
    files: Files,
    parents: Parents = None,
    sizes: Sizes = None,
    tasks: Tasks = None,
    copies: Copies = None,
    study: StudyName = None,
    reference: ReferenceName = None,
    hardware: Hardware = None,
    reports: ReportsPath = Path("reports"),
) -> None:
    """Compare models that lm-eval evaluated, from its own files: densities, r, verdict and page. Nothing is run.

    Example: compresslab import out/*/results_*.json out/*/samples_*.jsonl --parent Llama-3.1-8B
    """
    from compresslab.cli.run import summary
    from compresslab.cli.tables import console, say
    from compresslab.studies.imported.page import write_imported
    from compresslab.studies.imported.study import ImportRequest, import_study

    request = ImportRequest(
        files, parents or (), sizes or (), tasks or (), copies or (), study=study, reference=reference, hardware=hardware or ()
    )
    record = import_study(request)
    page = write_imported(record, reports)
    screen = console()
    summary(screen, record)
    say(screen, f"Nothing was run. Report: {page}")
