"""`compresslab run`: runs recipes and writes their reports."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli.node_progress import first_line
from compresslab.cli.options import (
    Address,
    Computing,
    Device,
    ExecutorName,
    Jobs,
    Limit,
    Only,
    RecipePaths,
    ReportsPath,
    Settings,
    StorePath,
    Threads,
    Track,
    TrustCode,
    changes,
    duration,
    store_root,
)
from compresslab.cli.tables import console, say, show_table, table

if TYPE_CHECKING:
    from rich.console import Console

    from compresslab.records import StudyRecord


COLUMNS = ("variant", "N", "stored", "bpb", "accuracy", "density", "r to parent", "verdict")
NARROW_COLUMNS = ("variant", "stored", "bpb", "density", "r to parent", "verdict")
MIN_WIDTH = 98


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
    jobs: Jobs = None,
    threads: Threads = None,
    executor: ExecutorName = "local",
    address: Address = None,
    trust_code: TrustCode = False,
    track: Track = None,
    dry_run: DryRun = False,
) -> None:
    """Run recipes: make what is missing, evaluate, compute densities, write the report. Running again resumes.

    All recipes are checked before the first one runs.

    Example: compresslab run quickstart.yaml
    """
    if dry_run:
        from compresslab.cli.plan import plan as show_plan

        for recipe in recipes:
            show_plan(recipe, store, settings=settings, only=only, limit=limit, compute=compute, device=device, trust_code=trust_code)
        return
    # Before slow work, which includes the first probe of this machine.
    first_line(*recipes)
    from compresslab.cli.progress import ProgressPrinter
    from compresslab.errors import BadInput, RunFailed
    from compresslab.plan.prepare import prepare

    screen = console()
    failed = []
    if address is not None and executor != "ray":
        raise BadInput("--address is the address of a Ray cluster; add --executor ray")
    if track is not None:
        from compresslab.tracking.choose import check_tracker, send

        check_tracker(track)
    with ProgressPrinter(screen) as printer, contextlib.ExitStack() as stack:
        printer.start_part("read what is to run")
        changed = changes(settings, only, limit, compute)
        cluster = None
        if executor == "ray":
            from compresslab.runner.executors.cluster import connected

            printer.start_part("look at the hosts of the cluster")
            cluster = stack.enter_context(connected(address, store_root(store), device))
            for line in cluster.told():
                printer.say(line)
        machine = None if cluster is None else cluster.machine
        plans = [prepare(recipe, changed, device, machine=machine, trust_code=trust_code) for recipe in recipes]
        for place, plan in enumerate(plans):
            for other in plans[:place]:
                if other.recipe.study == plan.recipe.study and other.file.sha256 != plan.file.sha256:
                    raise BadInput(f"{other.file.path} and {plan.file.path} both call their study {plan.recipe.study!r}; rename one")
        from compresslab.report.charts.vega import shared_renderer
        from compresslab.runner.executors.local import jobs_on
        from compresslab.store.store import Store
        from compresslab.studies.programs import check_programs
        from compresslab.studies.run_study import run_study

        for plan in plans:
            check_programs(plan, Store(store_root(store)))
        at_once = jobs_on(device, jobs) if cluster is None else jobs
        # Between studies that compute, the process of the chart library would keep memory that they may need.
        quick = all(plan.recipe.evaluate.source == "published" for plan in plans)
        stack.enter_context(shared_renderer() if quick else contextlib.nullcontext())
        for plan in plans:
            for warning in plan.warnings:
                say(screen, f"warning: {warning}")
            try:
                record = run_study(
                    plan, store=store_root(store), reports=reports, watcher=printer, jobs=at_once, threads=threads, cluster=cluster
                )
            except (RunFailed, BadInput, OSError) as error:
                if len(plans) == 1:
                    raise
                failed.append(f"{plan.recipe.study}: {error}")
                continue
            summary(screen, record)
            say(screen, _done(record, reports))
            if track is not None and (trouble := send(record, track, store_root(store), reports)):
                say(screen, f"warning: {trouble}")
            if printer.failures:
                causes = [f"  {failure.node}: {failure.cause}" for failure in printer.failures]
                message = f"{len(causes)} of {record.nodes} nodes failed or could not run; the rest is in the report:"
                failed.append("\n".join([message, *causes]))
    if failed:
        raise RunFailed("\n".join(failed))


def _done(record: StudyRecord, reports: Path) -> str:
    """The duration of a study, and the path of its page."""
    from compresslab.studies.page_folder import folder_of_record

    source = f"{record.cached_nodes} of {record.nodes} nodes were cached;" if record.nodes else "published scores,"
    return f"{source} {duration(record.seconds)}. Report: {folder_of_record(record, reports) / 'index.html'}"


def summary(screen: Console, record: StudyRecord) -> None:
    """Print the verdict table and the answer in a sentence."""
    from compresslab.report import words
    from compresslab.report.answer import answer
    from compresslab.report.facts import comparison_with, is_pending, mean_accuracy, mean_bpb, noise_sentences, shared_tasks, was_built

    tasks = shared_tasks(record)
    by_name = {variant.name: variant for variant in record.variants}
    headings = COLUMNS if screen.width >= MIN_WIDTH else NARROW_COLUMNS
    rows = []
    for variant in record.variants:
        size, comparison = variant.size, comparison_with(variant, "parent")
        built = size is not None and was_built(variant, by_name)
        density, r = variant.density.params if variant.density else None, comparison.headline[0] if comparison else None
        cells = {
            "variant": variant.name,
            "N": words.count(size.counted) if built and size else "",
            "stored": words.size(size.stored_bytes) if built and size else "",
            "bpb": words.number(mean_bpb(variant, tasks)),
            "accuracy": words.percent(mean_accuracy(variant, tasks)),
            "density": f"{words.point(density)}{'*' if density and density.extrapolated else ''}",
            "r to parent": f"{words.point(r)} {words.span(r, 2)}".rstrip() + "*" * r.extrapolated if r else "",
            "verdict": "pending"
            if is_pending(variant)
            else "failed"
            if variant.failures
            else f"{comparison.headline[1]} {words.place(comparison)}"
            if comparison
            else "replicate"
            if variant.replicate_of
            else "",
        }
        rows.append([cells[heading] for heading in headings])
    unnamed = {place for place, variant in enumerate(record.variants) if not variant.named}
    right = [heading for heading in headings if heading not in ("variant", "verdict")]
    show_table(screen, table(headings, rows, right=right, whole=("variant",), dim=unnamed), record.question)
    if any(density.extrapolated for variant in record.variants if variant.density and (density := variant.density.params)):
        screen.print("* outside the sizes that the reference was fitted on", style="dim", highlight=False)
    for sentence in noise_sentences(record):
        say(screen, sentence)
    say(screen, answer(record).headline)
