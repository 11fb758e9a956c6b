"""`compresslab gc`: free what no study uses."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from compresslab.cli.options import AsJson, StorePath, number_of, size, store_root

SHOWN = 12


def gc(
    store: StorePath = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Free what no study uses: results of steps that recipes no longer have, what dead runs left, logs. Asks first.

    `--json` lists it and frees nothing, but with `--yes`.

    Example: compresslab gc --yes
    """
    from compresslab.runner.store import Store
    from compresslab.runner.upkeep import remove, unused

    kept = Store(store_root(store))
    found = unused(kept)
    total = sum(one.size for one in found)
    if as_json:
        rows = [{"path": str(one.path), "why": one.why, "bytes": one.size} for one in found]
        typer.echo(json.dumps({"store": str(kept.root), "unused": rows, "bytes": total, "freed": yes}, indent=2))
        if yes:
            remove(found)
        return
    if not found:
        typer.echo(f"everything in {kept.root} is used by a study; nothing to free")
        return
    for one in found[:SHOWN]:
        typer.echo(f"{size(one.size):>9}  {one.path}  {one.why}")
    if rest := found[SHOWN:]:
        typer.echo(f"{size(sum(one.size for one in rest)):>9}  in {number_of(len(rest), 'smaller one')}")
    if yes or typer.confirm(f"free {size(total)}?"):
        typer.echo(f"freed {size(remove(found))}")
    else:
        typer.echo("nothing was freed")
