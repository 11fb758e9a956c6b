"""lm-eval's own tasks by name, and the folders that define them.

Does not import lm_eval: its files are read as text, so that the error for a misspelt task comes at once.
"""

from __future__ import annotations

import difflib
import functools
import re
from importlib import util
from pathlib import Path

from compresslab.catalog import olmes
from compresslab.errors import BadInput

NAME_LINE = re.compile(r"^[\"']?(?:task|group|tag)[\"']?: *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)
LIST_ITEM_LINE = re.compile(r"^ *- *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)


PREFIX = "lm-eval:"
"""Prefix that selects lm-eval's own task, 0-shot by default, for a name that OLMES also has, such as arc_easy."""


def plain(name: str) -> str:
    """The name without the prefix, as lm-eval has it."""
    return name.removeprefix(PREFIX)


@functools.cache
def find(name: str) -> Path:
    """The folder whose files define the task, tag or group `name`. Takes milliseconds if it exists, else half a second.

    Raises:
        BadInput: no such name; the message has similar names.
    """
    known: set[str] = set()
    listing_folder: Path | None = None
    folders = (path for path in _tasks_folder().iterdir() if path.is_dir())
    for top in sorted(folders, key=lambda path: (not name.startswith(path.name.split("_")[0]), path.name)):
        for file in sorted(top.rglob("*.yaml")):
            text = file.read_text(encoding="utf-8", errors="replace")
            names = NAME_LINE.findall(text)
            known.update(names)
            if name in names:
                return top
            if listing_folder is None and name in text and name in LIST_ITEM_LINE.findall(text):
                listing_folder = top  # one of several tags, or a member of a group that is defined elsewhere
    if listing_folder is not None:
        return listing_folder
    matches = difflib.get_close_matches(name, {*known, *olmes.TASKS}, n=3)
    hint = f"; did you mean {' or '.join(matches)}?" if matches else "."
    raise BadInput(f"no task is called {name}{hint} {offline_tasks()} Every task of lm-eval may be named, too.")


def offline_tasks() -> str:
    """A sentence that lists the tasks that need no hub."""
    return f"Tasks that need no hub: {', '.join(olmes.TASKS)}."


def _tasks_folder() -> Path:
    spec = util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("lm-eval is not installed; `pip install lm-eval` brings its tasks")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"
