"""Limits of this process's control groups, by which containers and batch systems give it a part of a machine."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import psutil

CGROUPS, CGROUP_OF_THIS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def control_groups(controller: str) -> list[Path]:
    """The folders of this process's control group and of those above it, own first: of version 2, and of a controller of version 1.

    In a container the path of the own group may be the host's, and what is mounted is the container's group. Such a path leads nowhere.
    """
    found: dict[Path, None] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in CGROUP_OF_THIS.read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers == "" or controller in controllers.split(","):
                root = CGROUPS / controller if controllers else CGROUPS
                folder = root / own.lstrip("/")
                found |= dict.fromkeys(path for path in (folder, *folder.parents, root) if path.is_relative_to(root))
    return [folder for folder in found if folder.is_dir()]


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where a control group has a limit."""
    limits = (_number(folder / name) for folder in control_groups("memory") for name in ("memory.max", "memory.limit_in_bytes"))
    return int(min(psutil.virtual_memory().total, *limits, math.inf))


def processors() -> float:
    """Number of processors that the control groups' time quotas allow (`--cpus` of containers); infinite without a limit."""
    return min((_quota(folder) for folder in control_groups("cpu")), default=math.inf)


def _number(file: Path) -> float:
    """The limit in a file; infinite if it has none ("max", or no file)."""
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return math.inf


def _quota(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    quota_us, period_us = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota_us / period_us if 0 < quota_us < math.inf and period_us < math.inf else math.inf
