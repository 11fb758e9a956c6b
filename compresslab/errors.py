"""Every error that a user can meet, and what errors of libraries mean. Each message says what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from compresslab.printable import printable
from compresslab.suggestions import MOST_PROBLEMS


class CompresslabError(Exception):
    """Base of all expected errors. The command line prints the message alone, without a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # messages quote recipes, files and libraries, and are read on terminals


class BadInput(CompresslabError):
    """What the user gave cannot be used: a recipe, an option, a model name, a file."""

    exit_code = 2


class RecipeError(BadInput):
    """One or more problems in a recipe, all of them listed at once.

    Attributes:
        problems: the single messages, each already carrying `file:line:column`. The error's own text has the first `MOST_PROBLEMS`.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        more = len(problems) - MOST_PROBLEMS
        super().__init__("\n".join([f"{count} in the recipe:", *problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))


class UnsupportedModel(BadInput):
    """A method does not apply to this architecture; the message names the module or the setting that is in the way."""


class RunFailed(CompresslabError):
    """A node of a study failed while it ran. What finished before it stays in the store."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means that memory ran out, so that neither the model nor the code is the cause."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in ("not enough memory", "out of memory", "allocate memory"))


class CompresslabWarning(UserWarning):
    """Something was left out of a result, and the rest of it is whole."""


# A disk with less room than this is full: file systems keep a few blocks for themselves, in bytes.
FULL = 2**16
# What libraries say when a file could not be written to its end; the last one is torch's.
FULL_WORDS = ("no space left on device", "disk is full", "unexpected pos ")


def disk_trouble(error: BaseException, *folders: Path) -> str:
    """What is wrong with a disk and what to do, if an error of any library means that; else "".

    Libraries often hide the cause, so the errors behind this one are looked at, too. If none names the disk, but that of one of the folders
    is full, it is taken to be the cause of an error of input or output.

    Args:
        folders: that were written into.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(link) for link in chain).lower()
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    named = [Path(link.filename) for link in chain if isinstance(link, OSError) and isinstance(link.filename, str | Path)]
    full = next((folder for folder in (*named, *folders, Path(tempfile.gettempdir())) if _is_full(folder)), None)
    place = full or next(iter((*named, *folders)), None)
    where = f" of {place}" if place else ""
    free = "free some (`compresslab ls` tells what a store holds) and run again"
    if errno.ENOSPC in numbers or any(words in text for words in FULL_WORDS):
        return f"no space is left on the disk{where}; {free}"
    if errno.EDQUOT in numbers or "disk quota exceeded" in text:
        return f"the quota of the disk{where} is used up; {free}"
    if errno.EROFS in numbers or "read-only file system" in text:
        return f"the disk{where} is read-only; make it writable, or name another folder"
    if full and (numbers & {None, errno.EIO} or "write" in text or "i/o error" in text):
        return f"no space is left on the disk{where} ({type(error).__name__}: {' '.join(str(error).split())[:100]}); {free}"
    return ""


def _is_full(path: Path) -> bool:
    """Whether the disk of a path is full; what does not exist, or may not be looked at, is on the disk of its folder."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free < FULL
        except (OSError, ValueError):  # a path with a null character
            continue
    return False
