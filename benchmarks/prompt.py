"""How soon the prompt is back after the commands that a person waits for: the best of some calls, in seconds.

    python benchmarks/prompt.py [--calls 8]

Processor time stands beside wall time, since other work on the machine adds to the latter only. The second table is of a study of 100
variants whose 500 results are all in the store (records as a run writes them, models left out).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).parent.parent
sys.path[:0] = [str(HOME)]

from tests.report import studies  # noqa: E402, the report's tests know how to make a study of any size

QUICKSTART = str(HOME / "recipes" / "quickstart.yaml")
COMMANDS = (["--help"], ["validate", QUICKSTART], ["plan", QUICKSTART], ["ls"])
LARGE = """
study: large
base: {model: offline:smollm2-135m-instruct}
sweeps:
  width-{keep}: {grid: {keep: [%s]}, steps: [{prune: {method: width, keep: "{keep}"}}]}
evaluate: {tasks: [arc_easy, csqa, openbookqa], items: 200}
density: {hardware: [this-machine]}
"""


def large_store(folder: Path) -> int:
    """A recipe, its store and its report in `folder`; how many results the store has."""
    from compresslab.plan.prepare import prepare
    from compresslab.records import Cost, MachineSpeed, StepRecord, TaskScore, Timing
    from compresslab.report.html import write
    from compresslab.store.done import results
    from compresslab.store.store import Store, write_record
    from compresslab.store.upkeep import note

    recipe = folder / "large.yaml"
    recipe.write_text(LARGE % ", ".join(str(keep) for keep in range(700, 799)))
    plan, store = prepare(recipe), Store(folder / ".compresslab")
    cost = Cost(seconds=1, peak_memory_bytes=1, started="2026-11-22T00:00:00+00:00", threads=2, device="cpu")
    made = studies.many(99)
    variant = made.variants[1]
    assert variant.timing is not None
    speed = MachineSpeed(bandwidth=1e10, flops=1e12, threads=2, device="cpu", dtype="float32")
    records = {StepRecord: variant.steps[-1], TaskScore: variant.scores[0], Timing: variant.timing, MachineSpeed: speed}
    keys = {key: kind for node in plan.nodes for key, kind in results(node).items()}
    for key, kind in keys.items():
        with store.stage(key) as staged:
            if kind is not None:
                write_record(staged, records[kind])
            write_record(staged, cost, "cost.json")
            store.commit(key, staged, kind)
    note(plan, store)
    write(made.model_copy(update={"study": "large"}), folder / "reports" / "large")
    return len(keys)


def call(arguments: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "compresslab.cli.main", *arguments], cwd=folder, capture_output=True, check=True)
    wall = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def told(commands: tuple[list[str], ...], folder: str, calls: int) -> None:
    """Print the best of some calls of each."""
    for arguments in commands:
        walls, processor = zip(*(call(arguments, folder) for _ in range(calls)), strict=True)
        print(f"{' '.join(arguments[:1]):10s} {min(walls):5.2f} s wall, {min(processor):5.2f} s of the processor", flush=True)


def main() -> None:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=8, help="calls of each command")
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        told(COMMANDS, folder, calls)
    with tempfile.TemporaryDirectory() as folder:
        print(f"with {large_store(Path(folder))} results in the store:")
        told((["plan", "large.yaml"], ["ls"], ["show", "large"], ["show", "large", "depth-3"]), folder, calls)


if __name__ == "__main__":
    main()
