"""`compresslab validate`: checks that a recipe is valid and can be planned."""

from __future__ import annotations

import typer

from compresslab.cli.options import Limit, Only, RecipePath, Settings, changes, count_of
from compresslab.printable import printable


def validate(recipe: RecipePath, settings: Settings = None, only: Only = None, limit: Limit = None) -> None:
    """Check a recipe: form, names, order of the steps. Tells everything that is wrong at once. Runs nothing.

    Example: compresslab validate quickstart.yaml --set evaluate.items=50
    """
    from compresslab.plan.prepare import prepare
    from compresslab.studies.programs import missing_sandbox

    plan = prepare(recipe, changes(settings, only, limit))
    named = [variant.name for variant in plan.variants if variant.named and variant.parent]
    published = plan.recipe.evaluate.source == "published"
    tasks = "published scores" if published else count_of(len(plan.recipe.evaluate.tasks), "task")
    typer.echo(printable(f"{recipe}: valid; {count_of(len(named), 'variant')} of {plan.recipe.base.model}, {tasks}"))
    for warning in (*plan.warnings, *filter(None, [missing_sandbox(plan)])):
        typer.echo(printable(f"warning: {warning}"))
