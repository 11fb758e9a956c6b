"""`compresslab ls`: lists the studies of a store and their variants."""

from __future__ import annotations

import json
from typing import Any

import typer

from compresslab.cli.options import AsJson, StorePath, count_of, size, store_root
from compresslab.printable import printable


def ls(store: StorePath = None, as_json: AsJson = False) -> None:
    """List the studies that ran here, with their variants, sizes and folders.

    Example: compresslab ls
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from compresslab.records import StepRecord
    from compresslab.store.store import Store

    result_store = Store(store_root(store))
    rows: list[dict[str, Any]] = []
    for study, note in result_store.notes().items():
        for name, keys in note.variants.items():
            key = keys.get("model", "")
            cached = bool(key) and result_store.occupied(key)
            record = result_store.find(key, StepRecord) if cached else None
            rows.append(
                {
                    "study": study,
                    "variant": name,
                    "parameters": record.size.counted if record else None,
                    "stored_bytes": record.size.stored_bytes if record else None,
                    "model": str(result_store.model(key)) if record else None,
                    "problem": result_store.problem(key, StepRecord) if cached else "",
                    "finished": note.finished,
                }
            )
    for broken in result_store.broken_notes():
        typer.echo(f"warning: {broken}", err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"no study has run in {result_store.root} yet; `compresslab run recipes/quickstart.yaml` runs the first")
        return
    console = Console()
    for study in dict.fromkeys(row["study"] for row in rows):
        variant_rows = [row for row in rows if row["study"] == study]
        finished = variant_rows[0]["finished"] or "not finished"
        title = printable(f"{study}: {count_of(len(variant_rows), 'variant')}, last run {finished}")
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for heading in ("variant", "N", "stored", "model folder"):
            table.add_column(heading, justify="right" if heading in ("N", "stored") else "left", overflow="fold")
        for row in variant_rows:
            parameters = f"{row['parameters'] / 1e6:.1f}M" if row["parameters"] else "-"
            stored = size(row["stored_bytes"]) if row["stored_bytes"] else "-"
            where = row["model"] or _why_not(row["problem"])
            table.add_row(Text(printable(row["variant"])), parameters, stored, Text(printable(where)))
        console.print(table)


def _why_not(problem: str) -> str:
    return f"cannot be used, {problem}; the next run makes it again" if problem else "not made"
