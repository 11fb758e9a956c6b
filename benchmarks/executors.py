"""One study by one job, by two jobs, and on a Ray cluster of two nodes of this machine: are the results equal, and what does Ray cost?

    python benchmarks/executors.py [RECIPE] [arguments of `compresslab run`, such as --limit 20]

Each node has one thread, so that sums are rounded alike. Everything but times and places is compared byte by byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compresslab.records import MachineSpeed, Timing
from compresslab.store.store import Store

ROOT = Path(__file__).parents[1]
RECIPE, ARGUMENTS = str(ROOT / "recipes" / "quickstart.yaml"), ["--limit", "20"]
PLACES = ("cost.json", "digests.json")


def main() -> None:
    """Print a table."""
    recipe, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else (RECIPE, ARGUMENTS)
    # Ray lets its workers wait for every other program; a run's own workers do not.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (its name)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        first = None
        print("| where | elapsed | results | other bytes than by one job |\n|---|---|---|---|", flush=True)
        for name, more in [("one job", ["--jobs", "1"]), ("two jobs", ["--jobs", "2"]), ("Ray, two nodes", None)]:
            cluster: Any = None
            if more is None:
                from ray.cluster_utils import Cluster

                cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
                cluster.add_node(num_cpus=1)
                more = ["--executor", "ray", "--address", cluster.address]
            store = Path(folder) / name.replace(" ", "-")
            began = time.monotonic()
            command = [sys.executable, "-m", "compresslab", "run", recipe, *arguments, "--store", str(store), "--threads", "1"]
            done = subprocess.run([*command, "--reports", f"{store}-reports", *more], capture_output=True, text=True, check=False)
            elapsed = time.monotonic() - began
            if cluster is not None:
                cluster.shutdown()
            assert done.returncode == 0, done.stdout + done.stderr
            found = results(Store(store))
            first = found if first is None else first
            differing = sum(found.get(path) != content for path, content in first.items()) + len(found.keys() - first.keys())
            print(
                f"| {name} | {elapsed:.0f} s | {len(list(Path(store, 'objects').iterdir()))} | {differing} files of {len(found)} |",
                flush=True,
            )


def results(store: Store) -> dict[str, bytes]:
    """All files of all results but measured times, costs and the digests of both."""
    timed = {folder.name for folder in store.objects.iterdir() if store.find(folder.name, Timing) or store.find(folder.name, MachineSpeed)}
    files = (path for path in store.objects.rglob("*") if path.is_file() and path.name not in PLACES)
    return {
        str(path.relative_to(store.objects)): path.read_bytes() for path in files if path.relative_to(store.objects).parts[0] not in timed
    }


if __name__ == "__main__":
    main()
