"""`compresslab report`: write a study's page again from what the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from compresslab.cli.options import Computing, Device, Limit, Only, RecipePath, ReportsPath, Settings, StorePath, changes, store_root

if TYPE_CHECKING:
    from compresslab.records import StudyRecord


def report(
    recipe: RecipePath,
    store: StorePath = None,
    reports: ReportsPath = Path("reports"),
    settings: Settings = None,
    only: Only = None,
    limit: Limit = None,
    compute: Computing = None,
    device: Device = None,
) -> None:
    """Write the report of a recipe from what is in the store, and run nothing. What is missing is named on the page.

    Example: compresslab report recipes/quickstart.yaml
    """
    from compresslab.errors import BadInput
    from compresslab.plan.prepare import prepare
    from compresslab.records import Failure
    from compresslab.runner.run import RunResult, to_do, why_missing
    from compresslab.runner.store import Store

    kept = Store(store_root(store))
    plan = prepare(recipe, changes(settings, only, limit, compute), device, noted=kept.notes())
    if plan.recipe.evaluate.source == "published":
        from compresslab.studies import published

        record = published.assemble(plan, recipe)
        _write(record, reports)
        return
    missing = {node.key: Failure(node=node.label, cause=why_missing(node, kept)) for node in to_do(plan, kept)}
    if plan.variants[0].model in missing:
        raise BadInput(f"nothing of {recipe} has run yet in {kept.root}; `compresslab run {recipe}` makes it")

    from compresslab.studies.assemble import assemble  # slow to import, so a recipe is refused before

    record = assemble(plan, kept, RunResult(missing, len(plan.nodes) - len(missing), 0.0), recipe)
    _write(record, reports)


def _write(record: StudyRecord, reports: Path) -> None:
    from compresslab.report.html import write
    from compresslab.report.index import write_index

    typer.echo(write(record, reports / record.study))
    write_index(reports)
