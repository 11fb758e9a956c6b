"""`compresslab plan`: what a run would do, and what it would cost."""

from __future__ import annotations

import json

import typer

from compresslab.cli.options import AsJson, RecipePath, StorePath, duration, size, store_root


def plan(recipe: RecipePath, store: StorePath = None, as_json: AsJson = False) -> None:
    """Show the nodes of a recipe: what is cached, what will run, and a rough estimate of memory, disk and time."""
    from rich.console import Console
    from rich.table import Table

    from compresslab.plan.estimate import estimate
    from compresslab.runner.run import is_done, machine_speed, prepare
    from compresslab.runner.store import Store

    planned = prepare(recipe)
    kept = Store(store_root(store))
    speed = machine_speed(planned, kept)
    rows = []
    for node in planned.nodes:
        cost = estimate(node, planned, speed.flops if speed else None)
        needs = [planned.node(key).label for key in node.needs]
        rows.append({"node": node.label, "key": node.key, "needs": needs, "cached": is_done(node, kept), **cost._asdict()})
    if as_json:
        typer.echo(json.dumps({"study": planned.recipe.study, "nodes": rows, "warnings": list(planned.warnings)}, indent=2))
        return
    table = Table(title=f"{planned.recipe.study}: {len(rows)} nodes", title_justify="left")
    for heading in ("node", "needs", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("memory", "disk", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for node, row in zip(planned.nodes, rows, strict=True):
        state = "cached" if row["cached"] else "to run"
        costs = ("", "", "") if row["cached"] else (size(row["memory"]), size(row["disk"]), duration(row["seconds"]))
        table.add_row(node.label, ", ".join(row["needs"]), state, *costs, style="dim" if row["cached"] else None)
    console = Console()
    console.print(table)
    left = [row for row in rows if not row["cached"]]
    unknown = sum(row["seconds"] is None for row in left)
    console.print(
        f"{len(rows) - len(left)} cached, {len(left)} to run: about {duration(sum(row['seconds'] or 0 for row in left))}, "
        f"{size(sum(row['disk'] or 0 for row in left))} of disk, {size(max((row['memory'] or 0 for row in left), default=0))} of memory at the peak"
        + (f"; {unknown} not estimated, because their model is not on this machine yet" if unknown else ""),
        highlight=False,
    )
    for warning in planned.warnings:
        console.print(f"warning: {warning}", highlight=False)
