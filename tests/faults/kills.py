"""Kills of the command line, its workers and its fork server, in all kinds of nodes: nothing is lost, and nobody is left.

Each chain runs one study until it is done, and every run of it but the last is struck once: by SIGKILL, SIGTERM, SIGHUP or SIGINT, sent to
the command, to a worker or to the fork server, at a random moment of a random node. Two seconds after the command has ended none of its
processes may live. At the end of the chain every digest must be that of an undisturbed run, and nothing may be left in the store's staging
area and in the temporary folder.

    python tests/faults/kills.py [--kills 200] [--seed 0] [--processes 2]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.study import deterministic, make_recipes

from compresslab.store.store import Store

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
TARGETS = ("command", "worker", "fork server")
# Seconds: how long a run may take, how long one that was asked to end may take to save, and after which nobody may be left.
LONGEST, TO_SAVE, GONE = 240, 20, 2.0
MARK = "COMPRESSLAB_KILLED_RUN"
# What torch's compiler keeps for the next process of the user, in the temporary folder: it is no run's own.
KEPT = "torchinductor_"


class Struck(NamedTuple):
    """A run that was struck: by what, in which node, and what was wrong; empty if nothing was."""

    signal: str
    target: str
    node: str
    wrong: str


class Chains:
    """Chains of runs over the recipe in `folder`."""

    def __init__(self, folder: Path, *, timed: bool = True) -> None:
        self.folder = folder
        self.recipe = make_recipes(folder, timed=timed)[0]
        undisturbed = Store(folder / "undisturbed")
        done = self._start(undisturbed.root, "undisturbed", folder)
        said, _ = done.communicate(timeout=LONGEST)
        assert done.returncode == 0, said
        self.expected = deterministic(undisturbed)
        self.nodes = [line.split("] ")[1].split(": starts")[0] for line in said.splitlines() if ": starts" in line]

    def chain(self, random_: random.Random, most: int) -> list[Struck]:
        """Strike runs on one store until the study is done; at most so many."""
        struck: list[Struck] = []
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="chain-") as scratch:
            store, temporary = Store(Path(scratch) / "store"), Path(scratch) / "tmp"
            temporary.mkdir()
            while len(struck) < most:
                one = self._run(store.root, temporary, random_)
                if one is None:
                    break
                struck.append(one)
            last = self._start(store.root, "last", temporary)
            said, _ = last.communicate(timeout=LONGEST)
            wrong = "" if last.returncode == 0 else f"the last run failed: {said[-300:]}"
            if not wrong and deterministic(store) != self.expected:
                wrong = "the store is not as an undisturbed run leaves it"
            if not wrong and (left := [*store.staging.iterdir(), *store.leases.folder.iterdir(), *_left(temporary)]):
                wrong = f"left: {left[0]}"
            if wrong:
                struck.append(Struck("-", "-", "end of the chain", wrong))
        return struck

    def _run(self, store: Path, temporary: Path, random_: random.Random) -> Struck | None:
        """Start a run and strike it; `None` if it was done before."""
        signum, target = random_.choice(SIGNALS), random_.choice(TARGETS)
        mark = f"{random_.getrandbits(64):x}"
        run = self._start(store, mark, temporary)
        said: list[str] = []
        reader = threading.Thread(target=_read, args=(run, said), daemon=True)
        reader.start()
        skipped, began, node = random_.choice([0, 0, 0, 0, 0, 1, 1, 2, 3]), time.monotonic(), ""
        while run.poll() is None and time.monotonic() - began < LONGEST:
            started = [line for line in said if ": starts" in line]
            if len(started) > skipped or (skipped == 0 and random_.random() < 0.01):
                node = started[-1].split("] ")[1].split(": starts")[0] if started else "before the first node"
                break
            time.sleep(0.02)
        victim = self._victim(run, target)
        time.sleep(random_.choice([0, 0.05, 0.2, 0.5, 1.5]) * random_.random())
        if not node and run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            return Struck("-", "-", "no node", f"a run did not end in {LONGEST} s")
        if run.poll() is not None:
            reader.join(5)
            return None if run.returncode == 0 else Struck("-", "-", node, f"a run failed: {''.join(said)[-300:]}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signum)
        wrong = self._ended(run, victim == run.pid, mark)
        reader.join(5)
        if not wrong and run.returncode == 0 and deterministic(Store(store)) != self.expected:
            wrong = "exit code 0 before the study was done"
        text = "".join(said)
        # A signal that comes before Python has started ends it as it ends every program.
        starting = run.returncode == -signum or "init_import_site" in text
        if not wrong and victim == run.pid and signum != signal.SIGKILL and run.returncode not in (128 + signum, 0) and not starting:
            wrong = f"exit code {run.returncode}: {text[-300:]}"
        if not wrong and "Traceback" in text and not starting:
            wrong = f"a traceback: {text[-300:]}"
        return Struck(signal.Signals(signum).name, "command" if victim == run.pid else target, node, wrong)

    def _ended(self, run: subprocess.Popen[str], command: bool, mark: str) -> str:
        """Wait until a run has ended; what is wrong with how it did."""
        try:
            run.wait(TO_SAVE if command else LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return "it did not end"
        deadline = time.monotonic() + GONE
        while left := _marked(mark):
            if time.monotonic() > deadline:
                told = "; ".join(f"{psutil.Process(pid).status()} {' '.join(psutil.Process(pid).cmdline())[:100]}" for pid in left)
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                return f"{len(left)} processes after {GONE:.0f} s: {told}"
            time.sleep(0.05)
        return ""

    def _victim(self, run: subprocess.Popen[str], target: str) -> int:
        """The process to strike, as soon as it is there; the command, if that ends before."""
        deadline = time.monotonic() + TO_SAVE
        while target != "command" and run.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                servers = [child for child in psutil.Process(run.pid).children() if "runner.server" in " ".join(child.cmdline())]
                if target == "fork server" and servers:
                    return servers[0].pid
                if target == "worker" and servers and (workers := servers[0].children()):
                    return workers[0].pid
            time.sleep(0.01)
        return run.pid

    def _start(self, store: Path, mark: str, temporary: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "compresslab", "run", str(self.recipe), "--store", str(store), "--reports", f"{store}-reports"]
        return subprocess.Popen(
            command,
            env=os.environ | {MARK: mark, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed,
        )


def _heed() -> None:
    """Obey all signals, also those that this script was told to ignore (`nohup`, a command in the background)."""
    for signum in SIGNALS[1:]:
        signal.signal(signum, signal.SIG_DFL)


def _read(run: subprocess.Popen[str], said: list[str]) -> None:
    assert run.stdout is not None
    with run.stdout:
        said.extend(run.stdout)


def _marked(mark: str) -> list[int]:
    """The living processes that a run started, by what they have in their environment."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        if (process.info["environ"] or {}).get(MARK) == mark and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def _left(temporary: Path) -> list[Path]:
    return [path for path in temporary.iterdir() if not path.name.startswith(KEPT)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="chains at a time")
    given, folder = parser.parse_args(), Path(tempfile.mkdtemp(prefix="kills-"))
    found: list[Struck] = []
    try:
        chains, guard, number = Chains(folder), threading.Lock(), iter(range(10**6))

        def work() -> None:
            while (left := given.kills - sum(one.signal != "-" for one in found)) > 0:
                with guard:
                    random_ = random.Random(f"{given.seed} {next(number)}")
                struck = chains.chain(random_, min(left, 12))
                with guard:
                    found.extend(struck)
                    for one in struck:
                        if one.wrong:
                            print(f"  {one.signal} to the {one.target} in {one.node!r}: {one.wrong}", flush=True)
                    print(f"{sum(one.signal != '-' for one in found)} kills", flush=True)

        with ThreadPoolExecutor(given.processes) as pool:
            for one in [pool.submit(work) for _ in range(given.processes)]:
                one.result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counted = collections.Counter((one.signal, one.target) for one in found if one.signal != "-")
    print(f"{'':10}" + "".join(f"{target:>14}" for target in TARGETS))
    for signum in SIGNALS:
        name = signal.Signals(signum).name
        print(f"{name:10}" + "".join(f"{counted[name, target]:>14}" for target in TARGETS))
    nodes = collections.Counter(one.node.split()[0] for one in found if one.signal != "-")
    print("in nodes: " + ", ".join(f"{name} {count}" for name, count in nodes.most_common()))
    bad = sum(bool(one.wrong) for one in found)
    print(f"{sum(counted.values())} kills, {len(chains.expected)} files compared at the end of each chain: {bad} wrong")
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
