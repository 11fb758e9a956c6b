"""`compresslab verify`: checks that the results of a study in the store are as they were written."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from compresslab.cli import completion
from compresslab.cli.options import AsJson, Computing, Device, RecipePath, StorePath, changes, count_of, store_root
from compresslab.printable import printable


def verify(
    recipe: RecipePath,
    variant: Annotated[
        str | None, typer.Argument(help="Reload this variant and answer its shortest task again.", autocompletion=completion.variants)
    ] = None,
    store: StorePath = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged, so that the next run makes it again.")] = False,
    compute: Computing = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Check that all results of a recipe are as they were written, by size and SHA-256, and that a variant still has the stored scores.

    Example: compresslab verify quickstart.yaml nf4
    """
    from compresslab.errors import BadInput, RunFailed
    from compresslab.plan.prepare import prepare
    from compresslab.store.done import results
    from compresslab.store.store import Store
    from compresslab.store.upkeep import damages
    from compresslab.store.upkeep import repair as mend

    result_store = Store(store_root(store))
    plan = prepare(recipe, changes(None, None, None, compute), device, noted=result_store.notes())
    if plan.recipe.evaluate.source == "published":
        raise BadInput(f"{recipe} is a study of published scores: nothing was run, so no results are kept that could be verified")
    names = [entry.name for entry in plan.variants]
    if variant is not None and variant not in names:
        raise BadInput(f"{plan.recipe.study} has no variant {variant!r}; it has: {', '.join(names)}")
    labels = {key: f"{node.label}, {task}" for node in plan.nodes for task, key in node.tasks.items()}
    labels |= {node.key: node.label for node in plan.nodes if not node.tasks}
    kinds = {key: kind for node in plan.nodes for key, kind in results(node).items()}
    cached = [key for key in labels if result_store.occupied(key)]
    broken = damages(result_store, kinds)
    rescored = None
    if variant is not None and not broken:
        from compresslab.studies.rescore import rescore

        rescored = rescore(plan, result_store, variant)
    if repair:
        mend(result_store, broken, kinds)
    if as_json:
        damaged = [
            {"node": labels[damage.key], "folder": str(result_store.folder(damage.key)), "problems": damage.problems} for damage in broken
        ]
        fields = {**rescored._asdict(), "holds": rescored.holds} if rescored else None
        typer.echo(json.dumps({"checked": len(cached), "damaged": damaged, "removed": repair, "rescored": fields}, indent=2))
    else:
        typer.echo(f"{count_of(len(cached), 'result')} of {len(labels)} are there; {len(cached) - len(broken)} are as they were written")
        if rescored is not None:
            bits = f"bits-per-byte changed by {rescored.bits:.2g} on average and by {rescored.largest:.2g} at most"
            answered = f"{variant} answered {count_of(rescored.items, 'item')} of {rescored.task} again"
            typer.echo(f"{answered}: {bits}, {rescored.choices:.1%} of the answers are others")
    lines = [printable(f"  {labels[damage.key]} ({result_store.folder(damage.key)}): {'; '.join(damage.problems)}") for damage in broken]
    if lines and repair:
        typer.echo("\n".join(["removed, so that the next run makes them again:", *lines]), err=as_json)
    elif lines:
        advice = f"`compresslab verify {recipe} --repair` removes them, and a run makes them again"
        raise RunFailed("\n".join([f"{count_of(len(broken), 'result')} {'is' if len(broken) == 1 else 'are'} damaged; {advice}:", *lines]))
    if rescored is not None and not rescored.holds:
        raise RunFailed(f"{variant} no longer scores what is stored; its folder, a library or the machine has changed")
