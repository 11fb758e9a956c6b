"""The content identity of a task, by its name."""

from __future__ import annotations

from compresslab.catalog import olmes, stock_tasks
from compresslab.versions import version


def identify_task(name: str, *, suggesting: bool = True) -> str:
    """The content identity of a task: the data wheel for OLMES tasks, lm-eval's version for its own.

    Args:
        suggesting: whether the message for an unknown name has similar names.

    Raises:
        BadInput: there is no such task.
    """
    if olmes.is_olmes(name):
        return olmes.identity(name)
    stock_tasks.find(stock_tasks.plain(name), suggesting=suggesting)
    return f"lm-eval {version('lm_eval')}: {stock_tasks.plain(name)}"
