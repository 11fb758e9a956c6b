"""Where figures come from: code, libraries, machine."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
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

CGROUP = Path("/sys/fs/cgroup")
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
        compute=plan.compute.decides() if plan.machine else {},
        cores=threads(),
        memory_bytes=psutil.virtual_memory().total,
        finished=now(),
    )


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def threads() -> int:
    """Processors that this process may use: those that it may run on, and no more than its control group's quota pays for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(CGROUP)
    return allowed if quota == math.inf else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroup: Path) -> float:
    """Processors' worth of time that the control group allows (of containers with `--cpus`); infinite without a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


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
