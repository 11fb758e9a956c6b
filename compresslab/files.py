"""Files that appear whole or not at all, and files that are read with one clear message for what is wrong with them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from compresslab.errors import RunFailed

# What `fsync` raises where a file system has nothing to flush to, or does not flush folders (FUSE, some network file systems).
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EBADF)


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
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk. File systems that cannot do that keep it as they do.

    On macOS `fsync` leaves data in the drive's own memory, and `F_FULLFSYNC` does not.

    Raises:
        OSError: the disk could not write it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        if (flush := getattr(fcntl, "F_FULLFSYNC", None)) is None:
            os.fsync(handle)
        else:
            fcntl.fcntl(handle, flush)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are there after a power failure, too. One that is there is left as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


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
