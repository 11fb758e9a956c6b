"""`compresslab ls`: lists the studies of a store and their variants."""

from __future__ import annotations

import json

import typer

from compresslab.cli.options import AsJson, StorePath, count_of, size, store_root


def ls(store: StorePath = None, as_json: AsJson = False) -> None:
    """List the studies that ran here, with their variants, sizes and folders.

    Example: compresslab ls
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from compresslab.records import StepRecord
    from compresslab.runner.store import Store

    results = Store(store_root(store))
    rows = []
    for study, facts in results.remembered().items():
        for name, keys in facts["variants"].items():
            cached = results.has(keys["model"])
            record = results.read(keys["model"], StepRecord) if cached else None
            rows.append(
                {
                    "study": study,
                    "variant": name,
                    "parameters": record.size.counted if record else None,
                    "stored_bytes": record.size.stored_bytes if record else None,
                    "model": str(results.model(keys["model"])) if cached else None,
                    "finished": facts["finished"],
                }
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"no study has run in {results.root} yet; `compresslab run recipes/quickstart.yaml` runs the first")
        return
    console = Console()
    for study in dict.fromkeys(row["study"] for row in rows):
        variant_rows = [row for row in rows if row["study"] == study]
        title = f"{study}: {count_of(len(variant_rows), 'variant')}, last run {variant_rows[0]['finished'] or 'not finished'}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for heading in ("variant", "N", "stored", "model folder"):
            table.add_column(heading, justify="right" if heading in ("N", "stored") else "left", overflow="fold")
        for row in variant_rows:
            parameters = f"{row['parameters'] / 1e6:.1f}M" if row["parameters"] else "-"
            stored = size(row["stored_bytes"]) if row["stored_bytes"] else "-"
            table.add_row(row["variant"], parameters, stored, Text(row["model"] or "not made"))
        console.print(table)
