"""Common options of the subcommands, and the format of counts, sizes and durations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compresslab.cli import completion
from compresslab.cli.default_store import default_store
from compresslab.records.compute import ComputeChoice

if TYPE_CHECKING:
    from compresslab.recipe.changes import Changes

RecipePaths = Annotated[list[Path], typer.Argument(help="One recipe or several, YAML files.", metavar="RECIPE...")]
RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
StorePath = Annotated[
    Path | None,
    typer.Option("--store", help="Where results are kept.  [default: $COMPRESSLAB_STORE or .compresslab]", show_default=False),
]
ReportsPath = Annotated[Path, typer.Option("--reports", help="Where pages are written, a folder a study.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Another value for one setting, by its path: --set evaluate.items=50. May be given several times.",
        metavar="PATH=VALUE",
        autocompletion=completion.settings,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="Only this variant and what it needs. May be given several times.",
        metavar="VARIANT",
        autocompletion=completion.variants,
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Items of each task, for a quick look: --set evaluate.items=N.", min=1)]
Computing = Annotated[
    ComputeChoice | None,
    typer.Option("--compute", help="Dtype of all matrix products: --set compute=DTYPE. `auto` takes what is fastest here."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, xpu, mps.  [default: the accelerator, if there is one]"),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", help="Nodes at once.  [default: one an accelerator, one on a processor]", min=1, show_default=False)
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Of the processor, a node.  [default: all, divided by the jobs]", min=1, show_default=False)
]
ExecutorName = Annotated[
    Literal["local", "ray"], typer.Option("--executor", help="Where nodes run: on this machine, or on the hosts of a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Head of the Ray cluster, host:port.  [default: $RAY_ADDRESS, or the one on this machine]",
        metavar="HOST:PORT",
        show_default=False,
    ),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run programs that a model wrote without a sandbox: they can read, write and send your files.")
]
Track = Annotated[
    Literal["mlflow", "tensorboard", "trackio", "wandb"] | None,
    typer.Option("--track", help="Also send parameters, curves, scores and densities to an experiment tracker."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def changes(settings: list[str] | None, only: list[str] | None, limit: int | None, compute: ComputeChoice | None = None) -> Changes:
    """The changes of a recipe by the options."""
    from compresslab.recipe.changes import Changes

    limited = [] if limit is None else [f"evaluate.items={limit}"]
    computed = [] if compute is None else [f"compute={compute}"]
    return Changes((*(settings or ()), *limited, *computed), tuple(only or ()))


def store_root(option: Path | None) -> Path:
    """The store's folder: the option, else the default."""
    return option or default_store()


def count_of(count: int, noun: str) -> str:
    """A count with its noun: 1 node, 2 nodes."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: float | None) -> str:
    """Bytes in readable units."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.1f} {unit}" if abs(count) < 99.95 and unit != "B" else f"{count:.0f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds in readable units."""
    if seconds is None:
        return "?"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
