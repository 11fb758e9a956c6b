"""Where figures come from: code, libraries, machine."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
from pathlib import Path

import psutil

import compresslab
from compresslab import lock
from compresslab.plan.graph import Plan
from compresslab.recipe.source import version
from compresslab.records import Provenance

LIBRARIES = ("torch", "transformers", "lm_eval", "bitsandbytes", "compressed-tensors", "peft", "datasets", "numpy", "scipy", "pandas")


def provenance(recipe_path: Path, plan: Plan) -> Provenance:
    """Provenance of a study that runs now."""
    package = Path(compresslab.__file__).parent
    return Provenance(
        recipe_sha256=hashlib.sha256(recipe_path.read_bytes()).hexdigest(),
        recipe_path=recipe_path.name,
        commit=_git(package, "rev-parse", "HEAD"),
        dirty=bool(_git(package, "status", "--porcelain", "--", ".")),
        versions={"compresslab": compresslab.__version__} | {name: version(name) for name in LIBRARIES},
        differing=lock.differing(),
        python=platform.python_version(),
        machine=plan.machine or processor(),
        compute=plan.compute.decides() if plan.probe else {},
        cores=threads(),
        memory_bytes=psutil.virtual_memory().total,
        finished=now(),
    )


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """The instruction sets that the processor has, as the system names them; empty where it does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()[2:]}


def _git(folder: Path, *arguments: str) -> str:
    """What git says about the folder's checkout; empty where there is none."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
