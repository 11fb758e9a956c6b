"""`compresslab recipes`: the recipes that ship with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compresslab.cli import completion
from compresslab.cli.options import AsJson

if TYPE_CHECKING:
    from compresslab.recipe.schema import Recipe

Name = Annotated[
    str | None,
    typer.Argument(help="One of them, to print it; without it all are listed.", metavar="NAME", autocompletion=completion.recipes),
]
Schema = Annotated[bool, typer.Option("--schema", help="Print the path of the JSON schema by which editors check a recipe.")]


def recipes(name: Name = None, schema: Schema = False, as_json: AsJson = False) -> None:
    """List the recipes that come with the package, or print one. `compresslab init --from NAME` writes it into a file.

    Example: compresslab recipes quickstart
    """
    from compresslab.catalog.recipes import recipe_path, recipe_paths, schema_path
    from compresslab.errors import BadInput

    if schema and (name is not None or as_json):
        raise BadInput("--schema prints a path and nothing else; give it alone")
    if schema:
        typer.echo(schema_path())
        return
    if name is not None:
        path = recipe_path(name)
        typer.echo(json.dumps(_row(path.stem, path), indent=2) if as_json else path.read_text(encoding="utf-8"), nl=as_json)
        return
    rows = [_row(stem, path) for stem, path in recipe_paths().items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from compresslab.cli.tables import console, say, show_table, table

    headings = ("recipe", "base", "parameters", "variants", "takes", "question")
    cells = [(row["recipe"], row["base"], _count(row["parameters"]), str(row["variants"]), _takes(row), row["question"]) for row in rows]
    screen = console()
    show_table(screen, table(headings, cells, right=("parameters", "variants", "takes"), whole=("recipe",)))
    say(screen, "minutes are those of two cores without a GPU; `compresslab plan` estimates them for this machine, or another with --on")
    say(screen, "`compresslab init --from NAME` writes one here, `compresslab recipes NAME` prints it")


def _row(name: str, path: Path) -> dict[str, Any]:
    """What is known of a recipe before it runs."""
    from compresslab.catalog.recipes import known_minutes
    from compresslab.recipe.load import load

    recipe = load(path)
    return {
        "recipe": name,
        "study": recipe.study,
        "question": recipe.question,
        "base": recipe.base.model.removeprefix("offline:").removeprefix("published:").partition("@")[0],
        "parameters": _parameters(recipe),
        "variants": len(recipe.variants),
        "runs": recipe.evaluate.source == "run",
        "minutes": known_minutes().get(name),
        "path": str(path),
    }


def _parameters(recipe: Recipe) -> int | None:
    """The parameters of the base; `None` if they cannot be known without the network."""
    from compresslab.catalog.published_scores import PREFIX, weights
    from compresslab.plan.model_files import dimensions_of
    from compresslab.recipe.source import parse_source

    model = recipe.base.model
    if model.startswith(PREFIX):
        return weights(model.removeprefix(PREFIX))[0].parameters
    dimensions = dimensions_of(parse_source(model))
    return None if dimensions is None else dimensions.parameters


def _count(parameters: int | None) -> str:
    from compresslab.report import words

    return "?" if parameters is None else words.count(parameters)


def _takes(row: dict[str, Any]) -> str:
    """About how long a recipe takes, in words."""
    if not row["runs"]:
        return "seconds"
    return f"{row['minutes']} min" if row["minutes"] is not None else "?"
