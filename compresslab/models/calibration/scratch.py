"""Temporary folders for data that a step gathers outside a study."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def in_scratch_folder(make: Callable[[Path], Result]) -> Result:
    """The result of `make` for a new empty folder. The folder is removed with the result, or at once if `make` fails."""
    folder = tempfile.mkdtemp(prefix="compresslab-scratch-")
    try:
        result = make(Path(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, folder, ignore_errors=True)
    return result
