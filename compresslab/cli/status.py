"""`compresslab status`: what runs where, what waits for what, and what failed, from any terminal that sees the store."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compresslab.cli import completion
from compresslab.cli.options import AsJson, StorePath, count_of, duration, store_root
from compresslab.cli.tables import console, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compresslab.runner.status.run_state import RunState
    from compresslab.store.store import Store

EVERY = 2.0  # seconds between two looks of --watch
Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again until nothing runs, or Ctrl-C.")]
Study = Annotated[
    str | None,
    typer.Argument(help="A study's name; all by default.", metavar="STUDY", show_default=False, autocompletion=completion.studies),
]


def status(study: Study = None, store: StorePath = None, watch: Watch = False, as_json: AsJson = False) -> None:
    """Show what runs where, since when and how far, what waits for what, and what failed. Any host that sees the store can ask.

    Example: compresslab status --watch
    """
    from compresslab.errors import BadInput
    from compresslab.runner.status.run_state import run_states
    from compresslab.store.store import Store
    from compresslab.suggestions import suggest

    if watch and as_json:
        raise BadInput("--watch and --json do not go together; ask again with --json as often as you like")
    result_store = Store(store_root(store))
    known = sorted({state.study for state in run_states(result_store)} | set(result_store.notes()))
    if study is not None and study not in known:
        raise BadInput(f"{result_store.root} knows of no study {study!r};{suggest(study, known)}".rstrip(";"))
    if as_json:
        typer.echo(json.dumps(_rows(result_store, study), indent=2))
        return
    from rich.live import Live

    screen = console()
    if not watch:
        screen.print(_shown(result_store, study), crop=False)
        return
    with Live(_shown(result_store, study), console=screen, auto_refresh=False) as live:
        while any(not state.ended and not state.silent for state in run_states(result_store, study)):
            time.sleep(EVERY)
            live.update(_shown(result_store, study), refresh=True)


def _rows(store: Store, study: str | None) -> list[dict[str, Any]]:
    """One row for each node of each run."""
    from compresslab.runner.status.run_state import run_states
    from compresslab.runner.status.running import running_nodes

    running = {node.key: node for node in running_nodes(store)}
    rows = []
    for run in run_states(store, study):
        for node in run.nodes:
            now = running.get(node.key)
            # What the command has told may be older than what the nodes tell.
            state = "running" if now and node.state != "done" else "lost sight of" if node.state == "running" and run.silent else node.state
            rows.append(
                {
                    "study": run.study,
                    "command": f"process {run.process} on {run.host}",
                    "node": node.label,
                    "state": state,
                    "where": " ".join([now.host, *now.devices]) if now else "",
                    "since": now.started if now else None,
                    "share": now.progressed.share if now else None,
                    "doing": now.progressed.text if now else "",
                    "why": node.why,
                }
            )
    return rows


def _shown(store: Store, study: str | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from compresslab.printable import printable
    from compresslab.runner.status.run_state import run_states

    rows = _rows(store, study)
    shown: list[RenderableType] = []
    for run in run_states(store, study):
        own = [row for row in rows if row["study"] == run.study and row["command"] == f"process {run.process} on {run.host}"]
        shown.append(Text(printable(_headline(run, own)), no_wrap=True, overflow="ignore"))
        cells = []
        for row in own:
            if row["state"] != "done":
                since = duration(time.time() - row["since"]) if row["since"] else ""
                how_far = f"{row['share']:.0%} {row['doing']}" if row["share"] is not None else _why(row)
                cells.append([str(cell) for cell in (row["node"], row["state"], row["where"], since, how_far)])
        if cells:
            shown.append(table(("node", "state", "where", "since", "how far, or why not"), cells))
    return Group(*shown) if shown else Text(f"no run is known in {store.root}; `compresslab run RECIPE` starts one")


def _headline(run: RunState, rows: list[dict[str, Any]]) -> str:
    counts = {state: sum(row["state"] == state for row in rows) for state in ("done", "running", "waiting", "failed", "lost")}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    seconds = time.time() - run.updated
    how = (
        f"ended {duration(seconds)} ago"
        if run.ended
        else f"no sign of life for {duration(seconds)}, so its command is gone; run it again to go on"
        if run.silent
        else "runs"
    )
    return f"{run.study}: {count_of(len(rows), 'node')}, {told} (process {run.process} on {run.host}, {how})"


def _why(row: dict[str, Any]) -> str:
    return f"waits for {row['why']}" if row["state"] == "waiting" else row["why"]
