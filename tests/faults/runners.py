"""Several runs at once on one store: the same study and different ones, killed and resumed, in containers of their own.

Every result is made once, no run fails, and the store ends as one undisturbed run leaves it.

    python tests/faults/runners.py [--rounds 30] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.study import deterministic, make_recipes

from compresslab.store.store import Store

TESTS = Path(__file__).parents[1]
APART = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
SECONDS = 300


class Round(NamedTuple):
    """What a round was, and what was wrong with it; empty if nothing was."""

    what: str
    wrong: str


class Runners:
    """Rounds of runs over the two recipes in `folder`."""

    def __init__(self, folder: Path, *, timed: bool = True) -> None:
        self.folder, self.recipes = folder, make_recipes(folder, timed=timed)
        self.namespaces = subprocess.run([*APART, "true"], check=False, capture_output=True).returncode == 0
        undisturbed = Store(folder / "undisturbed")
        for recipe in self.recipes:
            assert not (said := self._wait(self._start(recipe, undisturbed.root, folder / "undisturbed.commits", apart=False))), said
        self.expected = deterministic(undisturbed)
        self.keys = {path.name for path in undisturbed.objects.iterdir()}

    def round(self, random_: random.Random, most: int = 4, kills: int | None = None) -> Round:
        """Two runs or more at once on an empty store, of which some are killed and started again."""
        count, kills = random_.randint(2, most), random_.choice([0, 0, 1, 2]) if kills is None else kills
        apart = self.namespaces and random_.random() < 0.5
        recipes = [self.recipes[0], *(random_.choice(self.recipes) for _ in range(count - 2)), self.recipes[1]]
        what = f"{count} runs, {kills} killed{', each in its own PID namespace' if apart else ''}"
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="round-") as scratch:
            store, commits = Store(Path(scratch) / "store"), Path(scratch) / "commits"
            runs = [(recipe, self._start(recipe, store.root, commits, apart=apart)) for recipe in recipes]
            for _ in range(kills):
                time.sleep(random_.uniform(1, 8))
                recipe, run = victim = random_.choice(runs)
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.communicate()
                    runs[runs.index(victim)] = (recipe, self._start(recipe, store.root, commits, apart=apart))
            failed = [problem for _, run in runs if (problem := self._wait(run))]
            return Round(what, failed[0] if failed else self._wrong(store, commits, kills))

    def _wrong(self, store: Store, commits: Path, kills: int) -> str:
        if deterministic(store) != self.expected:
            return "the store is not as an undisturbed run leaves it"
        made = Counter(commits.read_text().split())
        again = sum(made.values()) - len(self.keys)
        if set(made) != self.keys or again > kills:
            return f"{again} results were made more than once"
        left = [*store.staging.iterdir(), *store.leases.folder.iterdir(), *(store.root / "checkpoints").glob("*")]
        return f"left in the store: {left[0]}" if left and not kills else ""

    def _start(self, recipe: Path, store: Path, commits: Path, *, apart: bool) -> subprocess.Popen[str]:
        reports = Path(tempfile.mkdtemp(dir=self.folder, prefix="reports-"))
        command = [sys.executable, "-m", "faults.counted", "run", str(recipe), "--store", str(store), "--reports", str(reports)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "COMMITS": str(commits)}
        return subprocess.Popen(
            [*(APART if apart else ()), *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _wait(self, run: subprocess.Popen[str]) -> str:
        """Wait for a run; what it said if it failed."""
        try:
            said, _ = run.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return f"a run hung: {run.communicate()[0][-500:]}"
        return "" if run.returncode == 0 else f"a run failed: {said[-500:]}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given, folder = parser.parse_args(), Path(tempfile.mkdtemp(prefix="runners-"))
    random_, bad = random.Random(given.seed), 0
    try:
        runners = Runners(folder)
        for number in range(1, given.rounds + 1):
            began = time.perf_counter()
            round_ = runners.round(random_)
            bad += bool(round_.wrong)
            print(
                f"round {number:>3}: {round_.what:<50} {time.perf_counter() - began:5.0f} s  {round_.wrong or 'as it should be'}",
                flush=True,
            )
        print(f"{given.rounds} rounds, {len(runners.keys)} results each: {bad} wrong")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
