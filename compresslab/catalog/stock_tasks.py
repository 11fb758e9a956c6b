"""lm-eval's own tasks by name, and the folders that define them.

Does not import lm_eval: its files are read as text, so that the error for a misspelt task comes at once.
"""

from __future__ import annotations

import functools
import re
from importlib import util
from pathlib import Path
from typing import NamedTuple

from compresslab.catalog import olmes
from compresslab.errors import BadInput
from compresslab.printable import printable
from compresslab.suggestions import suggest

NAME_LINE = re.compile(r"^[\"']?(?:task|group|tag)[\"']?: *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)
LIST_ITEM_LINE = re.compile(r"^ *- *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)


PREFIX = "lm-eval:"
"""Prefix that selects lm-eval's own task, 0-shot by default, for a name that OLMES also has, such as arc_easy."""


def plain(name: str) -> str:
    """The name without the prefix, as lm-eval has it."""
    return name.removeprefix(PREFIX)


class _Names(NamedTuple):
    """The tasks, tags and groups that some files define, and the names that their lists contain, each with its folder."""

    defined: dict[str, Path]
    listed: dict[str, Path]


@functools.cache
def find(name: str, *, suggesting: bool = True) -> Path:
    """The folder whose files define the task, tag or group `name`.

    Takes milliseconds if the folder's name begins like the task's. The first other name takes half a second, since all files are read.

    Args:
        suggesting: whether the message for an unknown name has similar names, which takes some milliseconds each time.

    Raises:
        BadInput: no such name.
    """
    root = tasks_folder()
    for folder in (folder for folder in _folders(root) if name.startswith(folder.name.split("_")[0])):
        if name in _names(folder).defined:
            return folder
    names = _all_names(root)
    if name in names.defined:
        return names.defined[name]
    if name in names.listed:  # one of several tags, or a member of a group that is defined elsewhere
        return names.listed[name]
    hint = suggest(name, {*olmes.TASKS, *names.defined}, 3) if suggesting else ""
    raise BadInput(f"no task is called {printable(name[:200])};{hint} {offline_tasks()} Every task of lm-eval may be named, too.")


@functools.cache
def _folders(root: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in root.iterdir() if path.is_dir()))


@functools.cache
def _names(folder: Path) -> _Names:
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.yaml"))]
    return _Names(*({name: folder for text in texts for name in form.findall(text)} for form in (NAME_LINE, LIST_ITEM_LINE)))


@functools.cache
def _all_names(root: Path) -> _Names:
    """The names of all folders. A name that stands in several belongs to the first."""
    found = _Names({}, {})
    for folder in reversed(_folders(root)):
        found.defined.update(_names(folder).defined)
        found.listed.update(_names(folder).listed)
    return found


def offline_tasks() -> str:
    """A sentence that lists the tasks that need no hub."""
    return f"Tasks that need no hub: {', '.join(olmes.TASKS)}."


def tasks_folder() -> Path:
    """The folder of the tasks of the installed lm-eval.

    Raises:
        BadInput: it is not installed.
    """
    spec = util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("lm-eval is not installed; `pip install lm-eval` brings its tasks")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"
