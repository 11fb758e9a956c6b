"""Makespans of simulated studies against what no schedule can beat, and the seconds that the scheduler itself takes.

python benchmarks/schedule.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from runner import test_scheduling as simulation

from compresslab.runner import schedule
from compresslab.runner.schedule import Host, Start, Work

HOSTS = {
    "1 slot": [Host("h", 1)],
    "2 slots": [Host("h", 2)],
    "8 slots": [Host("h", 8)],
    "64 slots on one host": [Host("h", 64)],
    "64 slots on 8 hosts": [Host(f"h{number}", 8) for number in range(8)],
}


def main() -> None:
    """Print two tables."""
    print("| 200 nodes, 40 studies | makespan / lower bound, mean | worst |\n|---|---|---|")
    for name, hosts in HOSTS.items():
        studies = [simulation.study(200, seed) for seed in range(40)]
        ratios = [simulation.makespan(works, hosts) / simulation.lower_bound(works, hosts) for works in studies]
        print(f"| {name} | {sum(ratios) / len(ratios):.3f} | {max(ratios):.3f} |")
    print("\n| 2,000 nodes | scheduler, all calls |\n|---|---|")
    for name, hosts in HOSTS.items():
        print(f"| {name} | {own_seconds(hosts):.2f} s |")


def own_seconds(hosts: Sequence[Host]) -> float:
    """Seconds in `in_order` and `schedule` over a whole study of 2,000 nodes."""
    spent = 0.0
    scheduled, ordered = schedule.schedule, schedule.in_order

    def timed_schedule(waiting: Sequence[Work], done: set[str], running: Sequence[Start], hosts: Sequence[Host]) -> list[Start]:
        nonlocal spent
        began = time.perf_counter()
        starts = scheduled(waiting, done, running, hosts)
        spent += time.perf_counter() - began
        return starts

    works = simulation.study(2000, 1)
    began = time.perf_counter()
    ordered(works)
    spent += time.perf_counter() - began
    simulation.schedule = timed_schedule  # type: ignore[assignment]
    try:
        simulation.makespan(works, hosts)
    finally:
        simulation.schedule = scheduled
    return spent


if __name__ == "__main__":
    main()
