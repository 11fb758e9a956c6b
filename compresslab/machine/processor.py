"""The processor: its name, its instruction sets, and the number of threads that this process may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from compresslab.machine import control_groups


def threads() -> int:
    """Number of processors that this process may use, by its affinity and its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = control_groups.processors()
    return allowed if quota == math.inf else max(1, min(allowed, math.ceil(quota)))


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """The processor's instruction sets by the system's names; empty if the system does not list them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()[2:]}
