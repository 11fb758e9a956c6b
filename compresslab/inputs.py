"""Files that users give: only regular files are opened, and only as much of them is read as their kind may hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

LARGEST_RECORD = 256 * 2**20  # a study's record or a digests file, in bytes
LARGEST_CONFIG = 8 * 2**20  # config.json and files like it, in bytes; real ones have kilobytes
LARGEST_TOKENIZER = 128 * 2**20  # tokenizer.json, in bytes; those of 256,000 tokens have 35 MB
LARGEST_INDEX = 32 * 2**20  # an index of shards, in bytes; those of models with thousands of experts have 10 MB
LARGEST_TEXT = 4 * 2**30  # a text file, in bytes; it is read whole
LARGEST_HEADER = 100_000_000  # the header of a safetensors file, in bytes; the format's own limit
# A file that changed less than this many seconds ago may change again within one tick of its file system's clock.
SETTLED_SECONDS = 2.0
_PART = 2**16
# What Git LFS leaves in the place of a large file that was not fetched.
_LFS = b"version https://git-lfs"
_NOT_FETCHED = "it is a pointer of Git LFS, not the file itself; run `git lfs pull` in its folder"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


class Stamp(NamedTuple):
    """What tells that a file was changed or replaced. The time of change (ctime) cannot be set back, that of modification can."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp in a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """Whether the file has rested long enough for a later change to give another stamp."""
        return time.time() - max(self.changed, self.modified) / 1e9 > SETTLED_SECONDS


_digests: dict[tuple[str, Stamp], str] = {}


def kind_of(mode: int) -> str:
    """What a file that is not regular is, in words; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else next((name for test, name in _KINDS if test(mode)), "no regular file")


def kind_at(path: Path) -> str:
    """What stands at a path, in words, if it is no regular file; empty if it is one, or nothing is there."""
    try:
        return kind_of(path.stat().st_mode)
    except (OSError, ValueError):
        return ""


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it, without waiting for anything.

    A named pipe without a writer, a terminal and `/dev/zero` would each hang a program that opens or reads them.

    Raises:
        OSError: it cannot be opened, or it is no regular file; `strerror` says what it is.
        ValueError: the path has a null byte.
    """
    _refuse(Path(path).stat().st_mode, path)  # opening some devices has an effect, so the path is looked at first
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse(mode: int, path: Path) -> None:
    if kind := kind_of(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"{kind}, not a regular file", str(path))


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file.

    Args:
        limit: the largest size in bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger; `strerror` says which.
        ValueError: the path has a null byte.
    """
    with open_regular(path) as file:
        # A sparse file may claim any size without having it. Files of the kernel claim none and have content.
        size = os.fstat(file.fileno()).st_size
        content = bytearray()
        # A reader allocates as much as it asks for, so that is the size, and a little for files that say none.
        while size <= limit and len(content) <= limit:
            part = file.read(min(limit - len(content), max(size - len(content), _PART)) + 1)
            if part is None:  # a file of the kernel that has nothing to say yet
                raise OSError(errno.EAGAIN, "nothing can be read from it now", str(path))
            if not part:
                return bytes(content)
            content += part
    raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))


def reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read, in a few words."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, no UTF-8, nested too deeply, or a pointer of Git LFS.
    """
    if content[: len(_LFS)] in (_LFS, _LFS.decode()):
        raise ValueError(_NOT_FETCHED)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, limit: int) -> Any:
    """The value of a JSON file of at most `limit` bytes. Raises like `read_regular` and `parse_json`."""
    return parse_json(read_regular(path, limit))


def safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: dtype, shape and place of each tensor by name, without the file's own metadata.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no safetensors file, or has more or fewer bytes than its header says.
    """
    with open_regular(path) as file:
        start, size = file.read(8), os.fstat(file.fileno()).st_size
        if start == _LFS[:8]:
            raise ValueError(_NOT_FETCHED)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise ValueError("it does not begin as a safetensors file, or is cut off")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    try:
        end = max((int(tensor.get("data_offsets", (0, 0))[1]) for tensor in header.values()), default=0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("its header does not describe tensors") from None
    if 8 + length + end != size:
        raise ValueError(f"it has {size:,} bytes, and its header says {8 + length + end:,}")
    return header


def sha256_of(path: Path) -> str:
    """Hex digest of a regular file's content, computed once a process while its stamp stays. Raises like `open_regular`."""
    with open_regular(path) as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        name = (os.path.realpath(path), stamp)
        if name not in _digests:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not stamp.settled or Stamp.of(os.fstat(file.fileno())) != stamp:
                return digest
            _digests[name] = digest
    return _digests[name]
