"""Which version of a package is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from importlib import metadata

# Packages that are imported by another name than they are installed by. Reading the names of all that is installed takes 0.2 s.
PACKAGES = {"sklearn": "scikit-learn", "antlr4": "antlr4-python3-runtime", "absl": "absl-py", "yaml": "PyYAML", "PIL": "pillow"}


def version(package: str) -> str:
    """The installed version of a package, or "absent"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@functools.cache
def package_of(module: str) -> str:
    """The package that brings a top-level module; the module's name if it is not installed."""
    package = PACKAGES.get(module, module)
    installed = None
    with contextlib.suppress(ImportError, ValueError):
        installed = importlib.util.find_spec(module)
    if installed is None or version(package) != "absent":
        return package
    return next(iter(sorted(metadata.packages_distributions().get(module, ()))), package)
