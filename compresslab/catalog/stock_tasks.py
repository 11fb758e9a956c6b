"""lm-eval's own tasks by name: whether there is one, and which folder defines it.

Nothing here imports lm_eval: its files are read as text, so that a recipe with a misspelt task is refused at once.
"""

from __future__ import annotations

import difflib
import functools
import re
from importlib import util
from pathlib import Path

from compresslab.catalog import olmes
from compresslab.errors import BadInput

NAMED = re.compile(r"^[\"']?(?:task|group|tag)[\"']?: *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)
LISTED = re.compile(r"^ *- *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)


PREFIX = "lm-eval:"
"""Before a name that OLMES has too, such as arc_easy: lm-eval's own task, 0-shot by default."""


def plain(name: str) -> str:
    """The name as lm-eval knows it."""
    return name.removeprefix(PREFIX)


@functools.cache
def find(name: str) -> Path:
    """The folder whose files define the task, tag or group `name`. Milliseconds if there is one, else half a second.

    Raises:
        BadInput: there is none; with what may have been meant.
    """
    known: set[str] = set()
    listed: Path | None = None
    folders = (path for path in _tasks_folder().iterdir() if path.is_dir())
    for top in sorted(folders, key=lambda path: (not name.startswith(path.name.split("_")[0]), path.name)):
        for file in sorted(top.rglob("*.yaml")):
            text = file.read_text(encoding="utf-8", errors="replace")
            names = NAMED.findall(text)
            known.update(names)
            if name in names:
                return top
            if listed is None and name in text and name in LISTED.findall(text):
                listed = top  # one of several tags, or a member of a group that is defined elsewhere
    if listed is not None:
        return listed
    close = difflib.get_close_matches(name, {*known, *olmes.TASKS}, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    raise BadInput(f"no task is called {name}{hint} {offline_tasks()} Every task of lm-eval may be named, too.")


def offline_tasks() -> str:
    """A sentence on what can be had without a hub."""
    return f"Tasks that need no hub: {', '.join(olmes.TASKS)}."


def _tasks_folder() -> Path:
    spec = util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("lm-eval is not installed; `pip install lm-eval` brings its tasks")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"
