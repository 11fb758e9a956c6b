"""Kills in a Ray cluster: a worker process of Ray, a raylet, or the command, at random moments of a study on two nodes of this machine.

Each chain runs one study on a new store until it is done, and each of its runs is struck once by SIGKILL. A run whose command lives must
end by itself with all results, on what is left of the cluster; the next run gets a whole cluster again. At the end every result must have
the bytes of an undisturbed run, and no result that was there before a kill may have been made again.

    python tests/faults/ray_kills.py [--kills 30] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.study import deterministic, make_recipes

from compresslab.store.store import Store

ROOT = Path(__file__).parents[2]
TARGETS = ("ray worker", "raylet", "command")
SERVER, MARK = "compresslab.runner.server", "COMPRESSLAB_RAY_KILLS"
LONGEST, GONE = 240.0, 60.0  # seconds: of one run, and until nobody of a killed command is left


class Struck(NamedTuple):
    """A run that was struck: what was killed, whether the run ended by itself, and what was wrong; empty if nothing was."""

    target: str
    ended: bool
    wrong: str


class Chains:
    """Chains of runs over one recipe."""

    def __init__(self, folder: Path) -> None:
        os.environ[MARK] = str(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.folder, self.recipe = folder, make_recipes(folder, timed=False)[0]
        store = folder / "undisturbed"
        done = subprocess.run([*self._command(store), "--jobs", "1"], capture_output=True, text=True, check=False, timeout=LONGEST)
        assert done.returncode == 0, done.stdout + done.stderr
        self.expected = deterministic(Store(store))
        self.cluster: Any = None

    def chain(self, random_: random.Random, most: int) -> list[Struck]:
        """Strike runs on one store until the study is done; at most so many."""
        struck: list[Struck] = []
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="chain-") as scratch:
            store = Store(Path(scratch) / "store")
            while len(struck) < most:
                one = self._run(store, random_)
                struck.append(one)
                if one.ended or one.wrong:
                    break
            else:
                return struck
            if not struck[-1].wrong and deterministic(store) != self.expected:
                struck[-1] = struck[-1]._replace(wrong="other results than those of an undisturbed run")
            left = [str(path) for place in (store.staging, store.running) for path in place.glob("*")]
            if left and not struck[-1].wrong:
                struck[-1] = struck[-1]._replace(wrong=f"left in the store: {left}")
        return struck

    def _run(self, store: Store, random_: random.Random) -> Struck:
        self._whole_cluster()
        command = [*self._command(store.root), "--executor", "ray", "--address", self.cluster.address]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        target = random_.choice(TARGETS)
        began, wait = time.monotonic(), random_.uniform(0.0, 3.0)
        while not list(store.running.glob("*")) and driver.poll() is None and time.monotonic() - began < LONGEST:
            time.sleep(0.02)
        time.sleep(wait)
        before = _inodes(store)
        if driver.poll() is None:
            self._kill(target, driver, random_)
        else:
            target = "nothing"
        try:
            said, _ = driver.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            driver.kill()
            return Struck(target, False, "the run hangs")
        again = [key for key, inode in before.items() if _inodes(store).get(key) != inode]
        if again:
            return Struck(target, False, f"made twice: {again}")
        if target == "command":
            return Struck(target, False, _left())
        return Struck(target, driver.returncode == 0, "" if driver.returncode == 0 else f"ended with {driver.returncode}: {said[-600:]}")

    def _kill(self, target: str, driver: subprocess.Popen[str], random_: random.Random) -> None:
        if target == "command":
            driver.kill()
        elif target == "raylet":
            self.cluster.remove_node(self.cluster.list_all_nodes()[1], allow_graceful=False)
        else:
            # Ray's processes bear the name of what they run; ours have a fork server.
            ours = [process for process in _ours("ray::") if any(SERVER in " ".join(child.cmdline()) for child in process.children())]
            if ours:
                random_.choice(ours).kill()

    def _whole_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        if self.cluster is None:
            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        while len(self.cluster.list_all_nodes()) < 2:
            self.cluster.add_node(num_cpus=1)

    def _command(self, store: Path) -> list[str]:
        reports = str(self.folder / "reports" / store.parent.name)
        return [sys.executable, "-m", "compresslab", "run", str(self.recipe), "--store", str(store), "--reports", reports, "--threads", "1"]


def _inodes(store: Store) -> dict[str, int]:
    return {folder.name: folder.stat().st_ino for folder in store.objects.glob("*")}


def _left() -> str:
    """Which of our processes outlive a killed command; empty if none does."""
    deadline = time.monotonic() + GONE
    while left := [process.pid for process in _ours(SERVER)]:
        if time.monotonic() > deadline:
            return f"processes {left} outlive the command"
        time.sleep(0.2)
    return ""


def _ours(command: str) -> list[psutil.Process]:
    """Processes of this script and of its cluster with this in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if command in " ".join(process.info["cmdline"] or []) and process.environ().get(MARK) == os.environ[MARK]:
                found.append(process)
    return found


def main() -> int:
    """Print a table of what was killed and what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random_, struck = random.Random(asked.seed), list[Struck]()
    folder = Path(tempfile.mkdtemp())
    try:
        chains = Chains(folder)
        while len(struck) < asked.kills:
            for one in chains.chain(random_, asked.kills - len(struck)):
                struck.append(one)
                print(f"{len(struck)}: {one.target}: {one.wrong or ('ended by itself' if one.ended else 'to go on')}", flush=True)
        if chains.cluster is not None:
            chains.cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for target, count in collections.Counter(one.target for one in struck).items():
        wrong = sum(bool(one.wrong) for one in struck if one.target == target)
        print(f"{target}: {count} killed, {wrong} wrong")
    return int(any(one.wrong for one in struck))


if __name__ == "__main__":
    sys.exit(main())
