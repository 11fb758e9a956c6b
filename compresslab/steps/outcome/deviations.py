"""What a step is told if its files are not what its settings ask."""

from __future__ import annotations

from collections.abc import Sequence

from compresslab.errors import RunFailed


def deviates(step: str, asked: str, found: str, modules: Sequence[str] = ()) -> RunFailed:
    """The error of a step whose files are something else than it was asked for.

    Args:
        step: kind and method. modules: where, if it is not the whole model. The message names the first one and how many more there are.
    """
    where = f" in {modules[0]}" if modules else ""
    more = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
    return RunFailed(f"{step}: the recipe asks for {asked}; the files have {found}{where}{more}; nothing was kept")
