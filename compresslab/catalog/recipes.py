"""The recipes that ship with the package, and the JSON schema by which editors check one."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.suggestions import suggest

# Folders of recipes in the order of a list: those of the root, for a laptop, of published scores, for large machines.
FOLDERS = ("recipes", "smollm2", "published", "full-size")
# What a recipe's first line names. `compresslab recipes --schema` prints the path of the same file for editors without a network.
SCHEMA_URL = "https://raw.githubusercontent.com/compresslab/compresslab/main/compresslab/data/recipe.schema.json"
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_URL}"


def schema_path() -> Path:
    """The file of the JSON schema."""
    return _data() / "recipe.schema.json"


def recipe_paths() -> dict[str, Path]:
    """The recipes by name, which is that of the file without its suffix, folder by folder."""
    folder = _data() / "recipes"
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")], key=lambda path: (FOLDERS.index(path.parent.name), path.name))
    return {path.stem: path for path in paths}


def recipe_path(name: str) -> Path:
    """The file of a recipe by its name, with or without the folder before it and the suffix behind it.

    Raises:
        BadInput: there is no such recipe.
    """
    paths = recipe_paths()
    path = paths.get(name.rpartition("/")[2].removesuffix(".yaml"))
    if path is None or not f"/{path.with_suffix('').as_posix()}".endswith(f"/{name.removesuffix('.yaml')}"):
        raise BadInput(f"no recipe of the package is called {name[:100]!r};{suggest(name, list(paths))} `compresslab recipes` lists them")
    return path


def known_minutes() -> dict[str, int]:
    """About how many minutes a recipe takes on two cores without a GPU, by name, of those that were timed on such a machine."""
    minutes: dict[str, int] = json.loads((_data() / "recipe_minutes.json").read_text(encoding="utf-8"))["minutes"]
    return minutes


def _data() -> Path:
    folder = resources.files("compresslab") / "data"
    assert isinstance(folder, Path), "the package is installed as files"
    return folder
