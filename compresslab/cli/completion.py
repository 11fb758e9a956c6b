"""What a shell offers when a word is completed: studies, variants, recipes, references, hardware, tasks, and what `--set` takes.

A function that cannot look something up offers nothing: nobody has pressed Enter yet, so there is nobody to tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from compresslab.cli.default_store import default_store
from compresslab.errors import BadInput


def studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Studies that the store knows, and those that have a report."""
    from compresslab.store.store import Store

    reported = [path.parent.name for path in _reports(ctx).glob("*/study.json")]
    return _beginning([*Store(ctx.params.get("store") or default_store()).notes(), *reported], incomplete)


def variants(ctx: typer.Context, incomplete: str) -> list[str]:
    """Variants of the study, or of the recipe, that stands before on the command line."""
    found = ["base"]
    study = ctx.params.get("study")
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        if study:
            record = json.loads((_reports(ctx) / study / "study.json").read_text(encoding="utf-8"))
            found += [variant["name"] for variant in record["variants"]]
    for path in _recipe_files():
        with contextlib.suppress(BadInput):
            from compresslab.recipe.load import load

            found += load(path).variants
    return _beginning(found, incomplete)


def recipes(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from compresslab.catalog.recipes import recipe_paths

    return _beginning(recipe_paths(), incomplete)


def references(incomplete: str) -> list[str]:
    """References that come with the package."""
    from compresslab.catalog.references import reference_names

    return _beginning(reference_names(), incomplete)


def hardware(incomplete: str) -> list[str]:
    """Hardware profiles that come with the package."""
    from compresslab.catalog.hardware import hardware_names

    return _beginning(hardware_names(), incomplete)


def reference_tasks(incomplete: str) -> list[str]:
    """Tasks of the reference that stands before on the command line."""
    from compresslab.density import Reference

    names = references("")
    found: list[str] = []
    for word in _words():
        with contextlib.suppress(BadInput):
            found += Reference.load(word).tasks if word in names or word.endswith(".json") else ()
    return _beginning(found, incomplete)


def ways_to_compress(incomplete: str) -> list[str]:
    """What `init --compress` takes, after the last comma."""
    from compresslab.plan.starter import CHOICES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _beginning(CHOICES, last)]


def settings(incomplete: str) -> list[str]:
    """Paths of `--set`, those of the recipe on the command line among them; after `=` methods, tasks and other known values."""
    path, equals, value = incomplete.partition("=")
    if not equals:
        return _beginning([f"{name}=" for name in [*_paths_of_the_schema(), *_paths_of_recipes()]], incomplete)
    before, bracket, last = value.rpartition("[" if "," not in value else ",")
    return [f"{path}={before}{bracket}{name}" for name in _beginning(_values(path, last.strip()), last.strip())]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _reports(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("reports") or "reports")


def _recipe_files() -> list[Path]:
    return [path for word in _words() if (path := Path(word)).suffix in (".yaml", ".yml") and path.is_file()]


def _words() -> list[str]:
    """The words of the command line. The parser gives no arguments to the completion of an option's value."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    with contextlib.suppress(ValueError):  # a quotation that is still open
        return shlex.split(line)
    return line.split()


def _paths_of_recipes() -> Iterator[str]:
    from compresslab.recipe.locate import parse

    for file in _recipe_files():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            root, _ = parse(file.read_text(encoding="utf-8-sig"))
            waiting = [root] if root is not None else []
            while waiting:
                node = waiting.pop(0)
                below = [*node.mapping.values(), *node.items]
                if not below and node.path:
                    yield node.path
                waiting += below


def _schema() -> dict[str, Any]:
    from compresslab.catalog.recipes import schema_path

    schema: dict[str, Any] = json.loads(schema_path().read_text(encoding="utf-8"))
    return schema


def _paths_of_the_schema() -> Iterator[str]:
    """Every setting outside of variants and sweeps."""
    schema = _schema()

    def below(part: dict[str, Any], path: str) -> Iterator[str]:
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        for name, field in part.get("properties", {}).items():
            if name not in ("variants", "sweeps"):
                yield from below(field, f"{path}.{name}" if path else name)
        if path and "properties" not in part:
            yield path

    return below(schema, "")


def _values(path: str, begun: str) -> Iterable[str]:
    """The known values of a setting."""
    *_, kind, name = ["", *path.split(".")]
    if name == "method":
        from compresslab.methods.registry import methods_of

        return [method.name for method in methods_of(kind)]
    if path.startswith("evaluate.tasks"):
        from compresslab.catalog.olmes import TASKS

        return [*TASKS, *_stock_tasks(begun)]
    if path == "density.reference":
        return references("")
    if path.startswith("density.hardware"):
        return ["this-machine", *hardware("")]
    schema: dict[str, Any] = _schema()
    part = schema
    for step in path.split("."):
        part = part.get("properties", {}).get(step, {})
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    if any(option.get("type") == "boolean" for option in part.get("anyOf", [])):
        return ["true", "false"]
    return [str(value) for value in part.get("enum", [])]


def _stock_tasks(begun: str) -> Iterator[str]:
    """lm-eval's tasks in the folders whose names begin like the word; all of them would take half a second at each key."""
    from compresslab.catalog.stock_tasks import NAME_LINE, tasks_folder

    with contextlib.suppress(BadInput, OSError):
        for folder in sorted(tasks_folder().iterdir()):
            if begun and begun.startswith(folder.name.split("_")[0][: len(begun)]) and folder.is_dir():
                for file in sorted(folder.rglob("*.yaml")):
                    yield from NAME_LINE.findall(file.read_text(encoding="utf-8"))
