"""Names of the references, read without numpy, because planning needs only the names."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from compresslab.suggestions import suggest


def reference_names() -> list[str]:
    """The references that ship with the package."""
    folder = resources.files("compresslab") / "data" / "references"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def is_file(name: str) -> bool:
    """Whether a reference's name is the path of a file, which ends in .json."""
    return name.endswith(".json")


def exists(name: str) -> bool:
    """Whether there is something at a path. What it is, is found out where it is opened."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name too long for the file system, a null byte
        return False


def unknown_reference(name: str) -> str:
    """The error message for a reference that does not exist; "" if it exists."""
    if is_file(name):
        return "" if exists(name) else f"there is no reference file {name[:200]}; `compresslab reference fit` or `build` writes one"
    names = reference_names()
    if name in names:
        return ""
    return f"there is no reference {name[:200]!r};{suggest(name, names)} (there is: {', '.join(names)}; or the path of a .json file)"
