"""`compresslab verify`: is a study in the store still what was written?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from compresslab.cli.options import AsJson, Computing, Device, RecipePath, StorePath, changes, number_of, store_root


def verify(
    recipe: RecipePath,
    variant: Annotated[str | None, typer.Argument(help="Reload this variant and answer its shortest task again.")] = None,
    store: StorePath = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged, so that the next run makes it again.")] = False,
    compute: Computing = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Check that all results of a recipe are as they were written, by size and SHA-256, and that a variant still scores what is stored.

    Example: compresslab verify recipes/quickstart.yaml nf4
    """
    from compresslab.errors import BadInput, RunFailed
    from compresslab.plan.prepare import prepare
    from compresslab.runner.run import results
    from compresslab.runner.store import Store
    from compresslab.runner.upkeep import damages

    kept = Store(store_root(store))
    plan = prepare(recipe, changes(None, None, None, compute), device, noted=kept.notes())
    names = [entry.name for entry in plan.variants]
    if variant is not None and variant not in names:
        raise BadInput(f"{plan.recipe.study} has no variant {variant!r}; it has: {', '.join(names)}")
    labels = {key: f"{node.label}, {task}" for node in plan.nodes for task, key in node.tasks.items()}
    labels |= {node.key: node.label for node in plan.nodes if not node.tasks}
    kinds = {key: kind for node in plan.nodes for key, kind in results(node).items()}
    there = [key for key in labels if kept.has(key)]
    found = damages(kept, kinds)
    again = None
    if variant is not None and not found:
        from compresslab.studies.rescore import rescore

        again = rescore(plan, kept, variant)
    if repair:
        for damage in found:
            kept.discard(damage.key)
    if as_json:
        damaged = [{"node": labels[damage.key], "folder": str(kept.folder(damage.key)), "problems": damage.problems} for damage in found]
        told = {**again._asdict(), "holds": again.holds} if again else None
        typer.echo(json.dumps({"checked": len(there), "damaged": damaged, "removed": repair, "rescored": told}, indent=2))
    else:
        typer.echo(f"{number_of(len(there), 'result')} of {len(labels)} are there; {len(there) - len(found)} are as they were written")
        if again is not None:
            bits = f"bits-per-byte changed by {again.bits:.2g} on average and by {again.largest:.2g} at most"
            answered = f"{variant} answered {number_of(again.items, 'item')} of {again.task} again"
            typer.echo(f"{answered}: {bits}, {again.choices:.1%} of the answers are others")
    lines = [f"  {labels[damage.key]} ({kept.folder(damage.key)}): {'; '.join(damage.problems)}" for damage in found]
    if lines and repair:
        typer.echo("\n".join(["removed, so that the next run makes them again:", *lines]), err=as_json)
    elif lines:
        advice = f"`compresslab verify {recipe} --repair` removes them, and a run makes them again"
        raise RunFailed("\n".join([f"{number_of(len(found), 'result')} {'is' if len(found) == 1 else 'are'} damaged; {advice}:", *lines]))
    if again is not None and not again.holds:
        raise RunFailed(f"{variant} no longer scores what is stored; its folder, a library or the machine has changed")
