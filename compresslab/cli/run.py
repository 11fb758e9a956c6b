"""`compresslab run`: a recipe from YAML to verdict and page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compresslab.cli.options import RecipePath, ReportsPath, StorePath, duration, store_root

if TYPE_CHECKING:
    from compresslab.records import StudyRecord


def run(recipe: RecipePath, store: StorePath = None, reports: ReportsPath = Path("reports")) -> None:
    """Run a recipe: make what is missing, evaluate, compute densities, write the report. Running again resumes."""
    from rich.console import Console

    from compresslab.cli.progress import Bars
    from compresslab.errors import RunFailed
    from compresslab.report.html import write
    from compresslab.runner.run import prepare
    from compresslab.runner.run import run as run_plan
    from compresslab.runner.store import Store
    from compresslab.runner.study import assemble

    console = Console()
    plan = prepare(recipe)
    kept = Store(store_root(store))
    for warning in plan.warnings:
        console.print(f"warning: {warning}", highlight=False)
    with Bars(console, plan, kept) as bars:
        ran = run_plan(plan, kept, bars)
    record = assemble(plan, kept, ran, recipe)
    keys = {variant.name: variant.keys for variant in record.variants}
    kept.remember(record.study, {"recipe": str(recipe), "finished": record.provenance.finished, "variants": keys})
    page = write(record, reports / record.study)
    summary(console, record)
    console.print(f"{ran.cached} of {len(plan.nodes)} nodes were cached; {duration(ran.seconds)}. Report: {page}", highlight=False, soft_wrap=True)
    if ran.failures:
        causes = [f"  {failure.node}: {failure.cause}" for failure in ran.failures.values()]
        raise RunFailed("\n".join([f"{len(causes)} of {len(plan.nodes)} nodes failed or could not run; the rest is in the report:", *causes]))


def summary(console: object, record: StudyRecord) -> None:
    """The verdict table on the terminal, and the answer in a sentence."""
    from rich.console import Console
    from rich.table import Table

    from compresslab.report import words
    from compresslab.report.answer import answer
    from compresslab.report.facts import compared, mean_accuracy, mean_bpb, shared_tasks

    assert isinstance(console, Console)
    tasks = shared_tasks(record)
    table = Table(title=record.question, title_justify="left")
    for heading in ("variant", "N", "stored", "bpb", "accuracy", "density", "r to parent", "verdict"):
        table.add_column(heading, justify="left" if heading in ("variant", "verdict") else "right", overflow="fold")
    for variant in record.variants:
        size, comparison = variant.size, compared(variant, "parent")
        built = size is not None and not variant.failures
        table.add_row(
            variant.name,
            words.count(size.counted) if built and size else "",
            words.size(size.stored_bytes) if built and size else "",
            words.number(mean_bpb(variant, tasks)),
            words.percent(mean_accuracy(variant, tasks)),
            words.ratio(variant.density.params) if variant.density else "",
            words.ratio(comparison.ratio) if comparison else "",
            "failed" if variant.failures else comparison.verdict if comparison else "",
            style=None if variant.named else "dim",
        )
    console.print(table)
    console.print(answer(record).headline, highlight=False)
