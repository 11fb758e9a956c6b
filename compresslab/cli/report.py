"""`compresslab report`: writes a study's page again from the store."""

from __future__ import annotations

from pathlib import Path

import typer

from compresslab.cli.options import Computing, Device, Limit, Only, RecipePath, ReportsPath, Settings, StorePath, changes, store_root
from compresslab.printable import printable


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

    Example: compresslab report quickstart.yaml
    """
    from compresslab.plan.prepare import prepare
    from compresslab.store.store import Store

    result_store = Store(store_root(store))
    plan = prepare(recipe, changes(settings, only, limit, compute), device, noted=result_store.notes())
    from compresslab.studies.page_folder import check_page_folder, folder_of_plan
    from compresslab.studies.run_study import report_study, write_page

    record = report_study(plan, result_store)
    check_page_folder(folder_of_plan(plan, reports), plan, result_store)
    typer.echo(printable(str(write_page(record, reports))))
