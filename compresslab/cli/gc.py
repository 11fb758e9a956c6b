"""`compresslab gc`: deletes results that no study uses."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from compresslab.cli.options import AsJson, StorePath, count_of, size, store_root
from compresslab.printable import printable

MAX_LISTED = 12


def gc(
    store: StorePath = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    gone: Annotated[
        bool,
        typer.Option("--gone", help="Also free what only recipes used that are no longer there, or not seen from here."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Free what no study uses: results of steps that recipes no longer have, what dead runs left, logs. Asks first.

    `--json` lists it and frees nothing, but with `--yes`.

    Example: compresslab gc --yes
    """
    from compresslab.store.store import Store
    from compresslab.store.upkeep import remove, unused

    result_store = Store(store_root(store))
    unused_items = unused(result_store, gone=gone)
    total = sum(item.size for item in unused_items)
    if as_json:
        rows = [{"path": str(item.path), "why": item.why, "bytes": item.size} for item in unused_items]
        typer.echo(json.dumps({"store": str(result_store.root), "unused": rows, "bytes": total, "freed": yes}, indent=2))
        if yes:
            remove(unused_items, result_store, gone=gone)
        return
    if not unused_items:
        typer.echo(f"everything in {result_store.root} is used by a study; nothing to free")
        return
    for item in unused_items[:MAX_LISTED]:
        typer.echo(printable(f"{size(item.size):>9}  {item.path}  {item.why}"))
    if rest := unused_items[MAX_LISTED:]:
        typer.echo(f"{size(sum(item.size for item in rest)):>9}  in {count_of(len(rest), 'smaller one')}")
    if yes or typer.confirm(f"free {size(total)}?"):
        typer.echo(f"freed {size(remove(unused_items, result_store, gone=gone))}")
    else:
        typer.echo("nothing was freed")
