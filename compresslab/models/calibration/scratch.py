"""Scratch folders of what a step that runs by itself gathers."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")


def in_scratch_folder(make: Callable[[Path], Made]) -> Made:
    """What `make` gives for a new empty folder. The folder is removed with it, or at once if `make` fails."""
    folder = tempfile.mkdtemp(prefix="compresslab-scratch-")
    try:
        made = make(Path(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made
