"""The content identity of a task, by its name."""

from __future__ import annotations

from compresslab.catalog import olmes, stock_tasks
from compresslab.versions import version


def identify_task(name: str) -> str:
    """The content identity of a task: the data wheel for OLMES tasks, lm-eval's version for its own.

    Raises:
        BadInput: there is no such task.
    """
    if olmes.is_olmes(name):
        return olmes.identity(name)
    stock_tasks.find(stock_tasks.plain(name))
    return f"lm-eval {version('lm_eval')}: {stock_tasks.plain(name)}"
