"""`compresslab run`: a recipe from YAML to verdict and page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli.options import (
    Computing,
    Device,
    Limit,
    Only,
    RecipePaths,
    ReportsPath,
    Settings,
    StorePath,
    changes,
    duration,
    store_root,
)
from compresslab.cli.signs import first_line

if TYPE_CHECKING:
    from rich.console import Console

    from compresslab.cli.progress import ProgressPrinter
    from compresslab.plan.graph import Plan
    from compresslab.records import StudyRecord


COLUMNS = ("variant", "N", "stored", "bpb", "accuracy", "density", "r to parent", "verdict")
NARROW_COLUMNS = ("variant", "stored", "bpb", "density", "r to parent", "verdict")
WIDE_ENOUGH = 98


DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and what it would cost, and run nothing.")]


def run(
    recipes: RecipePaths,
    store: StorePath = None,
    reports: ReportsPath = Path("reports"),
    settings: Settings = None,
    only: Only = None,
    limit: Limit = None,
    compute: Computing = None,
    device: Device = None,
    dry_run: DryRun = False,
) -> None:
    """Run recipes: make what is missing, evaluate, compute densities, write the report. Running again resumes.

    Of several recipes all are checked before the first runs.

    Example: compresslab run recipes/quickstart.yaml
    """
    if dry_run:
        from compresslab.cli.plan import plan as show_plan

        for recipe in recipes:
            show_plan(recipe, store, settings=settings, only=only, limit=limit, compute=compute, device=device)
        return
    # Before anything that takes time, the first look at this machine included.
    first_line(*recipes)
    from rich.console import Console

    from compresslab.cli.progress import ProgressPrinter
    from compresslab.errors import RunFailed
    from compresslab.plan.prepare import prepare

    console = Console()
    failed = []
    with ProgressPrinter(console) as signs:
        signs.during("read what is to run")
        changed = changes(settings, only, limit, compute)
        plans = [(recipe, prepare(recipe, changed, device)) for recipe in recipes]
        for recipe, plan in plans:
            for warning in plan.warnings:
                console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
            if plan.recipe.evaluate.source == "published":
                signs.during("assess published scores")
                _published(console, recipe, plan, reports)
            else:
                try:
                    _run(console, signs, recipe, plan, store, reports)
                except RunFailed as error:
                    failed.append(str(error))
    if failed:
        raise RunFailed("\n".join(failed))


def _published(console: Console, recipe: Path, plan: Plan, reports: Path) -> None:
    """A study of published scores: nothing runs, so nothing is kept but the report."""
    from compresslab.report.html import write
    from compresslab.report.index import write_index
    from compresslab.studies.published import assemble

    record = assemble(plan, recipe)
    page = write(record, reports / record.study)
    write_index(reports)
    summary(console, record)
    console.print(f"published scores, {duration(record.seconds)}. Report: {page}", highlight=False, markup=False, soft_wrap=True)


def _run(console: Console, signs: ProgressPrinter, recipe: Path, plan: Plan, store: Path | None, reports: Path) -> None:
    from compresslab.cli.progress import announce
    from compresslab.errors import RunFailed
    from compresslab.runner.run import run as run_plan
    from compresslab.runner.store import Store
    from compresslab.runner.upkeep import note

    kept = Store(store_root(store))
    note(plan, kept, recipe)
    announce(signs, plan, kept)
    ran = run_plan(plan, kept, signs)
    signs.during("compute densities and write the report")
    # Slow to import, so nodes start before.
    from compresslab.report.html import write
    from compresslab.report.index import write_index
    from compresslab.studies.assemble import assemble

    record = assemble(plan, kept, ran, recipe)
    note(plan, kept, recipe, record.provenance.finished)
    page = write(record, reports / record.study)
    write_index(reports)
    summary(console, record)
    cached = f"{ran.cached} of {len(plan.nodes)} nodes were cached"
    console.print(f"{cached}; {duration(ran.seconds)}. Report: {page}", highlight=False, markup=False, soft_wrap=True)
    if ran.failures:
        causes = [f"  {failure.node}: {failure.cause}" for failure in ran.failures.values()]
        failed = f"{len(causes)} of {len(plan.nodes)} nodes failed or could not run; the rest is in the report:"
        raise RunFailed("\n".join([failed, *causes]))


def summary(console: Console, record: StudyRecord) -> None:
    """The verdict table on the terminal, and the answer in a sentence."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from compresslab.report import words
    from compresslab.report.answer import answer
    from compresslab.report.facts import compared, mean_accuracy, mean_bpb, reached, shared_tasks

    tasks = shared_tasks(record)
    by_name = {variant.name: variant for variant in record.variants}
    # What the recipe says is text, not markup.
    table = Table(title=Text(record.question), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in COLUMNS if console.width >= WIDE_ENOUGH else NARROW_COLUMNS:
        table.add_column(heading, justify="left" if heading in ("variant", "verdict") else "right", overflow="fold")
    for variant in record.variants:
        size, comparison = variant.size, compared(variant, "parent")
        built = size is not None and reached(variant, by_name)
        density, r = variant.density.params if variant.density else None, comparison.ratio if comparison else None
        cells = {
            "variant": variant.name,
            "N": words.count(size.counted) if built and size else "",
            "stored": words.size(size.stored_bytes) if built and size else "",
            "bpb": words.number(mean_bpb(variant, tasks)),
            "accuracy": words.percent(mean_accuracy(variant, tasks)),
            "density": f"{words.point(density)}{'*' if density and density.extrapolated else ''}",
            "r to parent": f"{words.point(r)} {words.span(r, 2)}".rstrip() + "*" * r.extrapolated if r else "",
            "verdict": "failed" if variant.failures else comparison.verdict if comparison else "",
        }
        table.add_row(*(cells[str(column.header)] for column in table.columns), style=None if variant.named else "dim")
    console.print(table)
    if any(density.extrapolated for variant in record.variants if variant.density and (density := variant.density.params)):
        console.print("* outside the sizes that the reference was fitted on", style="dim", highlight=False)
    console.print(answer(record).headline, highlight=False, markup=False, soft_wrap=True)
