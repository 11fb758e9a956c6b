"""`compresslab assess`: one model against the model that it was made from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from compresslab.cli.options import Computing, Device, ReportsPath, StorePath

Child = Annotated[str, typer.Argument(help="The model: a folder, a Hub id, or a .gguf file.", metavar="CHILD")]
Against = Annotated[str, typer.Option("--against", help="The model that it was made from.", metavar="PARENT")]
How = Annotated[str, typer.Option("--how", help="In words, how it was made.", metavar="WORDS", show_default=False)]
Copy = Annotated[bool, typer.Option("--copy", help="It has the parent's weights, pruned or quantized and not trained.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="A task. May be given several times.  [default: the seven that the reference reads]", show_default=False),
]
Items = Annotated[int, typer.Option("--items", help="Items of each task; 0 for all.", min=0)]
Reference = Annotated[
    str | None, typer.Option("--reference", help="A reference, or its .json file.  [default: olmo-ladder]", show_default=False)
]
StudyName = Annotated[str, typer.Option("--study", help="The study's name.  [default: CHILD-against-PARENT]", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write the recipe, show what would run and what it would cost, and run nothing.")]


def assess(
    child: Child,
    against: Against,
    how: How = "",
    copy: Copy = False,
    tasks: Tasks = None,
    items: Items = 200,
    reference: Reference = None,
    study: StudyName = "",
    store: StorePath = None,
    reports: ReportsPath = Path("reports"),
    compute: Computing = None,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Is a model denser than the one that it was made from? Runs both on the same questions and writes a page, and the recipe beside it.

    Example: compresslab assess ./my-pruned-model --against ./my-model
    """
    from compresslab.cli.run import run
    from compresslab.errors import BadInput
    from compresslab.plan.prepare import prepare
    from compresslab.recipe.changes import Changes
    from compresslab.studies.pair import TASKS, Pair, write_recipe

    path, new = write_recipe(Pair(child, against, how, copy, study, tuple(tasks or TASKS), items or None, reference), reports)
    try:
        prepare(path, Changes(() if compute is None else (f"compute={compute}",)), device)
    except BadInput:
        if new:  # else a mended command would meet the recipe of the wrong one
            path.unlink()
            with contextlib.suppress(OSError):  # the folder has something else in it
                path.parent.rmdir()
        raise
    run([path], store, reports, compute=compute, device=device, dry_run=dry_run)
    typer.echo(f"Recipe: {path}; to go on, change it and run it: compresslab run {path}")
