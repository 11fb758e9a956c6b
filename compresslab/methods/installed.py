"""Methods of installed packages: entry points of the group `compresslab.methods`.

An entry point names a `Method`. One that cannot be used, whatever its package does, is left out. A recipe that names it gets the reason.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from importlib import machinery, metadata
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from compresslab.methods.choice import choice_of
from compresslab.methods.format import FOREIGN, Format
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
        method, reason = _loaded(entry, [*own, *found])
        if method is None:
            broken[entry.name] = f"{entry.value} {reason}"
        else:
            found.append(method)
    return InstalledMethods(tuple(found), broken)


def _loaded(entry: metadata.EntryPoint, others: Sequence[Method[Any]]) -> tuple[Method[Any] | None, str]:
    """The method of an entry point, or the reason why it cannot be added to the other methods.

    Code of another package runs here, and no error of it, an exit included, may stop a recipe that does not use it.
    """
    doing = "does not load"
    try:
        loaded = entry.load()
        doing = "cannot be checked"
        reason = _problem(loaded, others)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, f"{doing}: {type(error).__name__}: {error}"
    return (None, reason) if reason else (loaded, "")


def _problem(loaded: object, others: Sequence[Method[Any]]) -> str:
    """Why an object cannot be added to the other methods; empty if it can."""
    if not isinstance(loaded, Method):
        return f"is no compresslab.methods.method.Method but a {type(loaded).__name__}"
    if loaded.kind not in KINDS:
        return f"is of the kind {loaded.kind!r}; there are {', '.join(KINDS)}"
    if not issubclass(loaded.config, StepConfig):
        return f"has settings that are no subclass of {StepConfig.__module__}.{StepConfig.__name__}"
    try:
        hash(loaded)
    except TypeError as error:
        return f"has a field whose value can change ({error}); write tuples for lists"
    rivals = [other for other in others if other.kind == loaded.kind]
    problem = _module_problem(loaded) or _format_problem(loaded.format, others)
    return problem or _name_problem(loaded, rivals) or _settings_problem(loaded, rivals)


def _module_problem(loaded: Method[Any]) -> str:
    for module in (loaded.module, *([loaded.format.reader] if loaded.format else [])):
        if module.startswith("."):
            return f"names the module {module}; write its full name"
        if (why := _why_absent(module)) is not None:
            return f"names the module {module}, which is not there{why}"
    return ""


def _why_absent(module: str) -> str | None:
    """Why a module cannot be found; `None` if it can. Looking for it imports the packages around it."""
    try:
        return "" if importlib.util.find_spec(module) is None else None
    except ModuleNotFoundError:  # the package of the module is absent
        return ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f": {type(error).__name__}: {error}"


def _format_problem(written: Format | None, others: Sequence[Method[Any]]) -> str:
    if written is None:
        return ""
    if type(written) is not Format:
        return f"has a format that is no {Format.__module__}.{Format.__name__}"
    known = (*FOREIGN, *(other.format for other in others if other.format is not None))
    if any(one.name == written.name and one != written for one in known):
        return f"has a format of its own by the name {written.name!r} of another one; use that one, or choose another name"
    return ""


def _name_problem(loaded: Method[Any], rivals: Sequence[Method[Any]]) -> str:
    # Methods of one package may share a class of settings, which lists the names of all of them.
    names = {name for other in rivals if other.config is not loaded.config for name in names_of(other.config)}
    duplicates = names.intersection(names_of(loaded.config)) | ({other.name for other in rivals} & {loaded.name})
    return f"takes the name {min(duplicates)!r} of a {loaded.kind} method that is there already" if duplicates else ""


def _settings_problem(loaded: Method[Any], rivals: Sequence[Method[Any]]) -> str:
    """Why a recipe cannot choose among the settings of these methods."""
    field = loaded.config.model_fields["method"]
    if not field.is_required():
        return f"has the default {field.default!r} for `method`; only methods of compresslab itself are defaults, so leave it out"
    if field.alias or field.validation_alias:
        return "has an alias for `method`, the key by which a recipe chooses; leave it out"
    if {"teacher", "until"} <= loaded.config.model_fields.keys():
        return "has the settings `teacher` and `until`, and a step reads one other model only"
    loaded.config.model_rebuild(raise_errors=True)
    TypeAdapter(choice_of([*rivals, loaded])).rebuild(raise_errors=True)
    return ""


def files_of(module: str) -> dict[str, Path]:
    """The files of code of the installed package of a module, by their path in it; empty if there are none.

    The package is the outermost one that has code: a namespace is shared by packages that have nothing to do with one another.
    """
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        try:
            found = importlib.util.find_spec(".".join(parts[:count]))
        except Exception:  # of the code of a package around it
            return {}
        if found is None:
            return {}
        if found.origin is None:
            continue
        if found.submodule_search_locations is None:
            file = Path(found.origin)
            return {file.name: file} if file.is_file() else {}
        return {str(file.relative_to(folder)): file for folder in found.submodule_search_locations for file in _files(Path(folder))}
    return {}


def _files(folder: Path) -> list[Path]:
    suffixes = tuple(machinery.all_suffixes())
    return sorted(file for file in folder.rglob("*") if file.name.endswith(suffixes) and "__pycache__" not in file.parts and file.is_file())


@functools.cache
def release_of(module: str) -> str:
    """Name and version of the distribution of a module; empty if that is not known, as for the packages of a shared namespace."""
    try:
        names = set(metadata.packages_distributions().get(module.split(".")[0], ()))
        return " ".join(f"{name} {metadata.version(name)}" for name in names) if len(names) == 1 else ""
    except Exception:  # damaged metadata of any installed package
        return ""
