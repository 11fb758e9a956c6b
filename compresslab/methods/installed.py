"""Methods of installed packages: entry points of the group `compresslab.methods`.

An entry point names a `Method`. One that does not load, or that is none, is left out, and a recipe that names it is told why.
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
# Adopting takes a model as it is; there is no other way to do it.
KINDS = ("prune", "distill", "quantize", "retrain")


class InstalledMethods(NamedTuple):
    """What other packages bring: methods, and why an entry point is none, by its name."""

    methods: tuple[Method[Any], ...]
    broken: dict[str, str]


def installed_methods(own: Sequence[Method[Any]]) -> InstalledMethods:
    """Load the methods of all installed packages, in the order of their names.

    Args:
        own: the methods that are there already; no other one may take a name of theirs.
    """
    found: list[Method[Any]] = []
    broken: dict[str, str] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            loaded = entry.load()
        except Exception as error:  # whatever another package's code raises must not stop a recipe that does without it
            broken[entry.name] = f"{entry.value} does not load: {type(error).__name__}: {error}"
            continue
        if reason := _wrong(loaded, [*own, *found]):
            broken[entry.name] = f"{entry.value} {reason}"
        else:
            found.append(loaded)
    return InstalledMethods(tuple(found), broken)


def _wrong(loaded: object, others: Sequence[Method[Any]]) -> str:
    """Why something is no method that can stand beside the others, or nothing."""
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
    # Methods of one package may share a class of settings, and then its names.
    names = {name for other in rivals if other.config is not loaded.config for name in names_of(other.config)}
    taken = names.intersection(names_of(loaded.config)) | ({other.name for other in rivals} & {loaded.name})
    return f"takes the name {min(taken)!r} of a {loaded.kind} method that is there already" if taken else ""


def _absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # the package around it
        return True


def source_of(module: str) -> str | None:
    """The text of all Python files of the installed package that a module is from, as what decides its results; `None` without any."""
    found = importlib.util.find_spec(module.split(".")[0])
    if found is None:
        return None
    folders = found.submodule_search_locations
    files = [Path(found.origin)] if folders is None and found.origin else [file for folder in folders or () for file in _files(folder)]
    return "\n".join(file.read_text(encoding="utf-8") for file in files) or None


def _files(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.py"))
