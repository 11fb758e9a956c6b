"""`compresslab export`: copies a variant into a folder, with its model card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from compresslab.cli import completion
from compresslab.cli.options import ReportsPath, StorePath, size, store_root


def export(
    study: Annotated[str, typer.Argument(help="A study's name.", autocompletion=completion.studies)],
    variant: Annotated[str, typer.Argument(help="One of its variants.", autocompletion=completion.variants)],
    folder: Annotated[Path, typer.Argument(help="The folder, or .gguf file, to write; it must not exist.", metavar="FOLDER|FILE.gguf")],
    store: StorePath = None,
    reports: ReportsPath = Path("reports"),
) -> None:
    """Copy a variant's model out of the store as a folder that plain transformers loads, with a card of its density, parent and recipe.

    A plain Llama can be written as a GGUF file, for llama.cpp and programs built on it, with the card in the same folder.

    Example: compresslab export smollm2-quickstart nf4 my-model
    """
    from compresslab.cli.show import is_published, variant_of
    from compresslab.errors import BadInput, RunFailed
    from compresslab.records import StepRecord
    from compresslab.report.card import card
    from compresslab.store.reference import copy_model
    from compresslab.store.store import Store
    from compresslab.store.upkeep import damages

    record, variant_record = variant_of(study, variant, reports)
    result_store = Store(store_root(store))
    if is_published(record):
        raise BadInput(f"{study} is a study of published scores: no model was run, so there is none to export")
    key = variant_record.keys.get("model", "")
    if not key or not result_store.occupied(key):
        raise BadInput(f"{variant} of {study} is not in {result_store.root}; `compresslab run` makes it, --store names another store")
    for path in [folder, *([folder.with_suffix(".md")] if folder.suffix == ".gguf" else [])]:
        if path.exists() or path.is_symlink():
            raise BadInput(f"{path} exists already; give a folder or file that does not")
    if damaged := damages(result_store, {key: StepRecord}):
        raise RunFailed(f"{result_store.folder(key)} is damaged: {'; '.join(damaged[0].problems)}; `compresslab verify` tells more")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.suffix == ".gguf":
        from compresslab.models.formats.gguf import write_gguf

        title = f"{variant_record.name} of {record.study}, a compression of {record.base}"
        write_gguf(result_store.model(key), folder, f"{record.study} {variant_record.name}", title)
        card_path = folder.with_suffix(".md")
        card_path.write_text(card(record, variant_record, folder.name), encoding="utf-8")
        typer.echo(f"{folder}: {size(folder.stat().st_size)}, read back with equal logits; its card is {card_path}")
        return
    # An interrupted copy must not leave a folder that looks complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        copy = Path(scratch) / "model"
        copy_model(result_store.folder(key), copy)
        (copy / "README.md").write_text(card(record, variant_record, folder.name), encoding="utf-8")
        copy.rename(folder)
    typer.echo(f"{folder}: {size(sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()))}, with its card in README.md")
