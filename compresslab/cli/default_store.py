"""The store of a command that names none."""

from __future__ import annotations

import os
from pathlib import Path


def default_store() -> Path:
    """The store's folder: $COMPRESSLAB_STORE, else `.compresslab` in the current folder."""
    return Path(os.environ.get("COMPRESSLAB_STORE") or ".compresslab")
