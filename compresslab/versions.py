"""Which version of a package is installed."""

from __future__ import annotations

from importlib import metadata


def version(package: str) -> str:
    """The installed version of a package, or "absent"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
