"""Files that appear whole or not at all, and files that are read with one clear message for what is wrong with them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from compresslab.errors import RunFailed


def atomic_write(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of one, also after a power failure.

    The new file is written beside `path`, flushed to the disk and renamed. Its name is random, since two containers that share a folder
    may have the same process ids. It ends like `path`, since some writers look at a file's suffix.

    Args:
        path: the file to write or to replace; its folder is there.
        content: text (written as UTF-8), bytes, or a function that writes a file at the path that it is given.

    Raises:
        Exception: whatever the writer raises; the old file stays, and nothing is left beside it.
    """
    path = path.resolve()  # what a link points to is replaced, not the link
    part = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's list of names. Some network file systems cannot; the file is in its place all the same."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Around the reading of a file that a run wrote into the store.

    Raises:
        RunFailed: what is in the file is not what was written.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = " ".join(str(error).split())
        advice = "`compresslab verify RECIPE --repair` removes what is damaged, and a run makes it again"
        raise RunFailed(f"{path} is missing or damaged ({type(error).__name__}: {what[:100]}); {advice}") from error
