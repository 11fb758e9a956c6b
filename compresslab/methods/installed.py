"""Methods of installed packages: entry points of the group `compresslab.methods`.

An entry point names a `Method`. An entry point that does not load, or names no method, is left out. A recipe that names it gets the reason.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.methods.method import Method, names_of
from compresslab.methods.settings import StepConfig

GROUP = "compresslab.methods"
# Adopting is no kind for other packages: it takes a model unchanged, so one method suffices.
KINDS = ("prune", "distill", "quantize", "retrain")


class InstalledMethods(NamedTuple):
    """Methods of other packages, and the reason why an entry point was left out, by its name."""

    methods: tuple[Method[Any], ...]
    broken: dict[str, str]


def installed_methods(own: Sequence[Method[Any]]) -> InstalledMethods:
    """Load the methods of all installed packages, in the order of their names.

    Args:
        own: the package's own methods, whose names are reserved.
    """
    found: list[Method[Any]] = []
    broken: dict[str, str] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            loaded = entry.load()
        except Exception as error:  # an error in another package must not stop a recipe that does not use it
            broken[entry.name] = f"{entry.value} does not load: {type(error).__name__}: {error}"
            continue
        if reason := _problem(loaded, [*own, *found]):
            broken[entry.name] = f"{entry.value} {reason}"
        else:
            found.append(loaded)
    return InstalledMethods(tuple(found), broken)


def _problem(loaded: object, others: Sequence[Method[Any]]) -> str:
    """Why an object cannot be added to the other methods; empty if it can."""
    if not isinstance(loaded, Method):
        return f"is no compresslab.methods.method.Method but a {type(loaded).__name__}"
    if loaded.kind not in KINDS:
        return f"is of the kind {loaded.kind!r}; there are {', '.join(KINDS)}"
    if not issubclass(loaded.config, StepConfig):
        return f"has settings that are no subclass of {StepConfig.__module__}.{StepConfig.__name__}"
    for module in (loaded.module, *([loaded.format.reader] if loaded.format else [])):
        if _absent(module):
            return f"names the module {module}, which is not there"
    rivals = [other for other in others if other.kind == loaded.kind]
    # Methods of one package may share a class of settings, which lists the names of all of them.
    names = {name for other in rivals if other.config is not loaded.config for name in names_of(other.config)}
    duplicates = names.intersection(names_of(loaded.config)) | ({other.name for other in rivals} & {loaded.name})
    return f"takes the name {min(duplicates)!r} of a {loaded.kind} method that is there already" if duplicates else ""


def _absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # the package of the module is absent
        return True


def source_of(module: str) -> str | None:
    """The text of all Python files of the installed package of a module, which decides its results; `None` if there is none."""
    found = importlib.util.find_spec(module.split(".")[0])
    if found is None:
        return None
    folders = found.submodule_search_locations
    files = [Path(found.origin)] if folders is None and found.origin else [file for folder in folders or () for file in _files(folder)]
    return "\n".join(file.read_text(encoding="utf-8") for file in files) or None


def _files(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.py"))
