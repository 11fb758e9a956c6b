"""The lock, as data: the version that it names for every package, and how this installation differs from it."""

from __future__ import annotations

from importlib import metadata, resources

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def locked() -> dict[str, Requirement]:
    """What the lock names for this Python and platform, by the package's name. `make lock` writes it."""
    lines = (resources.files("compresslab") / "data" / "locked.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines]
    return {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}


def differing() -> dict[str, tuple[str, str]]:
    """The installed packages that differ from the lock: name, locked version, installed version.

    A package that is not installed does not differ. `2.13.0+cpu` is `2.13.0`: a local version names the build.
    """
    found = {}
    for name, pin in locked().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if not pin.specifier.contains(installed, prereleases=True):
            found[name] = (str(pin.specifier).removeprefix("=="), installed)
    return found
