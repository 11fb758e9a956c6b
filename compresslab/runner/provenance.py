"""Where figures come from: code, libraries, machine."""

from __future__ import annotations

import datetime
import functools
import platform
import resource
import subprocess
import sys
from pathlib import Path

import psutil

import compresslab
from compresslab import lock
from compresslab.machine.processor import processor, threads
from compresslab.plan.graph import Plan
from compresslab.records import Provenance
from compresslab.versions import version

LIBRARIES = ("torch", "transformers", "lm_eval", "bitsandbytes", "compressed-tensors", "peft", "datasets", "numpy", "scipy", "pandas")


def provenance(plan: Plan) -> Provenance:
    """Provenance of a study that runs now."""
    commit, dirty = _checkout()
    return Provenance(
        recipe_sha256=plan.file.sha256,
        recipe_path=plan.file.path.name,
        commit=commit,
        dirty=dirty,
        versions={"compresslab": compresslab.__version__} | _versions(),
        differing=_differing(),
        python=platform.python_version(),
        machine=plan.machine or processor(),
        compute=plan.compute.decides() if plan.machine else {},
        cores=plan.machine_facts.get("threads", threads()),
        memory_bytes=_memory(plan),
        finished=now(),
    )


def _memory(plan: Plan) -> int:
    """Bytes of memory of the plan's machine; of another one than this they are known in whole GiB."""
    own = psutil.virtual_memory().total
    stated: int = plan.machine_facts.get("memory_gib", round(own / 2**30))
    return own if stated == round(own / 2**30) else stated * 2**30


@functools.cache
def _checkout() -> tuple[str, bool]:
    """The commit of the code that this process has loaded, and whether its files differ from it."""
    package = Path(compresslab.__file__).parent
    return _git(package, "rev-parse", "HEAD"), bool(_git(package, "status", "--porcelain", "--", "."))


@functools.cache
def _versions() -> dict[str, str]:
    """The versions of the libraries. They are read once, because a process does not change the ones that it has loaded."""
    return {name: version(name) for name in LIBRARIES}


@functools.cache
def _differing() -> dict[str, tuple[str, str]]:
    """How this installation differs from the lock. The metadata of a hundred packages take a tenth of a second to read."""
    return lock.differing()


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def peak_memory() -> int:
    """Peak resident set of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _git(folder: Path, *arguments: str) -> str:
    """What git says about the folder's checkout; empty where there is none."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
