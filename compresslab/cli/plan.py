"""`compresslab plan`: shows what a run would do and cost."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compresslab.cli import completion
from compresslab.cli.options import (
    AsJson,
    Computing,
    Device,
    Limit,
    Only,
    RecipePath,
    Settings,
    StorePath,
    TrustCode,
    changes,
    count_of,
    duration,
    size,
    store_root,
)
from compresslab.cli.tables import console, say, show_table, table

if TYPE_CHECKING:
    from rich.console import Console

    from compresslab.plan.estimate import Speed
    from compresslab.plan.graph import Node, Plan
    from compresslab.store.store import Store

# A larger table leaves out cached nodes, so that those to run are visible. rich takes a third of a second for 300 rows.
MAX_LISTED_NODES = 100
# Nodes that do not fit and are warned of one by one.
MOST_WARNINGS = 8
On = Annotated[
    str | None,
    typer.Option("--on", help="estimate times for this hardware (h100-sxm, say), not for this machine", autocompletion=completion.hardware),
]


def plan(
    recipe: RecipePath,
    store: StorePath = None,
    on: On = None,
    as_json: AsJson = False,
    settings: Settings = None,
    only: Only = None,
    limit: Limit = None,
    compute: Computing = None,
    device: Device = None,
    trust_code: TrustCode = False,
) -> None:
    """Show the nodes of a recipe: what is cached, what will run, and a rough estimate of memory, disk and time.

    Example: compresslab plan quickstart.yaml
    """
    from compresslab.plan.advice import advice
    from compresslab.plan.prepare import prepare
    from compresslab.store.done import results
    from compresslab.store.store import Store

    planned = prepare(recipe, changes(settings, only, limit, compute), device, trust_code=trust_code)
    result_store = Store(store_root(store))
    rows = costs(planned, result_store, on)
    if as_json:
        typer.echo(json.dumps({"study": planned.recipe.study, "nodes": rows, "warnings": _warnings(planned)}, indent=2))
        return
    if planned.recipe.evaluate.source == "published":
        typer.echo(f"{planned.recipe.study}: published scores of {count_of(len(planned.variants), 'model')}; there is nothing to run")
        return
    screen = console()
    scored = {node.key: sum(result_store.holds(*result) for result in results(node).items()) for node in planned.of_kind("evaluate")}
    _show_table(screen, planned, rows, scored)
    warnings = [*_warnings(planned), *(_shortage(planned, rows) if on is None else [])]
    further = [*_replicates(planned, rows), *advice(planned, seconds_left(rows))]
    say(screen, summary(rows), *further, *(f"warning: {warning}" for warning in warnings))


def _warnings(planned: Plan) -> list[str]:
    from compresslab.studies.programs import missing_sandbox

    return [*planned.warnings, *filter(None, [missing_sandbox(planned)])]


def costs(planned: Plan, result_store: Store, on: str | None = None) -> list[dict[str, Any]]:
    """One row for each node: its inputs, whether it is cached, and its estimate.

    Args:
        on: name of the hardware for estimated times; default: this machine.

    Raises:
        BadInput: no hardware of that name is known.
    """
    from compresslab.plan.estimate import estimate
    from compresslab.store.done import to_do

    speed = _speed(on)
    to_run = {node.key for node in to_do(planned, result_store)}
    rows: list[dict[str, Any]] = []
    for node in planned.nodes:
        cost = estimate(node, planned, speed)
        needs = [planned.node(key).label for key in node.needs]
        rows.append({"node": node.label, "key": node.key, "needs": needs, "cached": node.key not in to_run, **cost._asdict()})
    return rows


def seconds_left(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Estimated seconds of the nodes that are to run, by key."""
    return {row["key"]: row["seconds"] for row in rows if not row["cached"]}


def _speed(on: str | None) -> Speed | None:
    """Speed of the hardware for estimated times; `None` for this machine.

    Raises:
        BadInput: no hardware of that name is known.
    """
    from compresslab.catalog.hardware import load_hardware
    from compresslab.plan.estimate import speed_of

    return None if on is None else speed_of((hardware := load_hardware(on)).flops, hardware.bandwidth)


def _show_table(screen: Console, planned: Plan, rows: list[dict[str, Any]], scored: dict[str, int]) -> None:
    cached = sum(row["cached"] for row in rows)
    shortened = len(rows) > MAX_LISTED_NODES and cached > 0
    title = f"{planned.recipe.study}: {count_of(len(rows), 'node')}" + (f", {cached} of them cached and not listed" if shortened else "")
    cells: list[tuple[str, ...]] = []
    dim: set[int] = set()
    for node, row in zip(planned.nodes, rows, strict=True):
        if shortened and row["cached"]:
            continue
        scored_tasks = scored.get(node.key, 0)
        state = "cached" if row["cached"] else f"{scored_tasks} of {len(node.tasks)} cached" if scored_tasks else "to run"
        costs = ("", "", "") if row["cached"] else (size(row["memory"]), size(row["disk"]), duration(row["seconds"]))
        dim |= {len(cells)} if row["cached"] else set()
        cells.append((node.label, _inputs(node, planned), state, *costs))
    headings = ("node", "made from", "state", "memory", "disk", "time")
    show_table(screen, table(headings, cells, right=headings[3:], dim=dim), title)


def _inputs(node: Node, planned: Plan) -> str:
    """The models that a model node reads. Other nodes read the model in their name, so theirs are not listed."""
    if node.kind == "gather":
        return planned.node(node.needs[0]).variant
    return ", ".join(planned.node(key).variant for key in node.needs if key != node.gathered) if node.kind == "model" else ""


def summary(rows: list[dict[str, Any]]) -> str:
    """The nodes to run and their cost, in one line."""
    to_run = [row for row in rows if not row["cached"]]
    if not to_run:
        return "everything is cached; a run only writes the report"
    total = {cost: sum(row[cost] or 0 for row in to_run) for cost in ("seconds", "disk")}
    unknown = sum(row["seconds"] is None for row in to_run)
    if unknown == len(to_run):
        return f"{len(rows) - len(to_run)} cached, {len(to_run)} to run; not estimated, because the model is not on this machine yet"
    return (
        f"{len(rows) - len(to_run)} cached, {len(to_run)} to run: about {duration(total['seconds'])}, {size(total['disk'])} of disk, "
        f"{size(_peak(to_run))} of memory at the peak"
        + (f"; without {count_of(unknown, 'node')} whose model is not on this machine yet" if unknown else "")
    )


def _replicates(planned: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """What the further replicates add to the nodes to run and to their time, in one line; none without replicates."""
    names = {variant.name for variant in planned.variants if variant.replicate_of}
    keys = {node.key for node in planned.nodes if node.variant in names or node.replicate}
    added = [row for row in rows if row["key"] in keys and not row["cached"]]
    if not added:
        return []
    seconds = sum(row["seconds"] or 0 for row in added)
    return [f"replicates are {count_of(len(added), 'node')} of these" + (f", about {duration(seconds)}" if seconds else "")]


def _peak(rows: list[dict[str, Any]]) -> float:
    return max((row["memory"] or 0.0 for row in rows if not row["cached"]), default=0.0)


def _shortage(planned: Plan, rows: list[dict[str, Any]]) -> list[str]:
    """A warning for each node that needs more memory than this machine, or its accelerator, has; of many, for the first ones."""
    from compresslab.machine import control_groups

    there = {"memory": ("this machine", control_groups.memory()), "device_memory": ("its accelerator", _accelerator_memory(planned))}
    warnings = [
        f"“{row['node']}” needs about {size(row[kind])} of memory and {what} has {size(total)}; it will be killed if that is so"
        for row in rows
        for kind, (what, total) in there.items()
        if not row["cached"] and (row[kind] or 0.0) > total
    ]
    more = len(warnings) - MOST_WARNINGS
    return [*warnings[:MOST_WARNINGS], *([f"{count_of(more, 'more node')} need more memory than there is"] if more > 0 else [])]


def _accelerator_memory(planned: Plan) -> float:
    """Bytes of memory of the accelerator that the plan computes on; infinite if it computes on the processor, or torch does not tell."""
    import contextlib

    if planned.compute.backend == "cpu":
        return math.inf
    import torch

    with contextlib.suppress(RuntimeError, AttributeError):
        return float(torch.get_device_module(planned.compute.device).get_device_properties(planned.compute.device).total_memory)
    return math.inf
