"""Damage at many places of a store: it is found, named, and repaired with all that came from it.

Each place is one file of a finished study and one kind of damage, with the file's times set back. First the damaged store is used as it is:
what was made from the damaged result is removed, so that a run has to read that. Then the damage is looked for by `verify`, removed by
`verify --repair`, and a run makes it again. Both times the store must end as an undisturbed run left it.

    python tests/faults/damages.py [--places 30] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.study import deterministic, make_recipes
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.errors import CompresslabError
from compresslab.plan.graph import Node, Plan
from compresslab.plan.prepare import prepare
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.done import results
from compresslab.store.store import Store


def zeros(file: Path, random_: random.Random) -> None:
    """Set up to 20,000 bytes to zero, somewhere."""
    content = bytearray(file.read_bytes())
    start = random_.randrange(max(1, len(content) // 2))
    content[start : start + 20_000] = bytes(len(content[start : start + 20_000]))
    file.write_bytes(content)


def one_bit(file: Path, random_: random.Random) -> None:
    """Turn one bit around."""
    content = bytearray(file.read_bytes())
    content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "zeros": zeros,
    "one bit": one_bit,
    "cut off": lambda file, random_: os.truncate(file, random_.randrange(file.stat().st_size)),
    "empty": lambda file, _: os.truncate(file, 0),
    "gone": lambda file, _: file.unlink(),
    "rubbish": lambda file, random_: file.write_bytes(random_.randbytes(500)),
    "[]": lambda file, _: file.write_text("[]"),
}
# A cost that cannot be read makes a result no worse.
HARMLESS = ("cost.json",)


class Place(NamedTuple):
    """What was damaged and how, and what was wrong afterwards; empty if nothing was."""

    node: str
    file: str
    damage: str
    wrong: str


class Damages:
    """A finished study in `folder`, and its copies that are damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recipe = folder, make_recipes(folder, timed=False)[0]  # times are never the same twice
        self.store = Store(folder / "undisturbed")
        self.plan: Plan = prepare(self.recipe)
        done = CliRunner().invoke(app, ["run", str(self.recipe), "--store", str(self.store.root), "--reports", str(folder / "reports")])
        assert done.exit_code == 0, done.output
        self.expected = deterministic(self.store)
        self.keys = {key: node for node in self.plan.nodes for key in results(node)}

    def place(self, random_: random.Random) -> Place:
        """Damage one file of a copy in one way, twice."""
        key = random_.choice(sorted(self.keys))
        files = [path for path in sorted(self.store.folder(key).rglob("*")) if path.is_file()]
        name, damage = str(random_.choice(files).relative_to(self.store.root)), random_.choice(sorted(DAMAGES))
        wrong = self._used(key, name, damage, random_) or self._repaired(key, name, damage, random_)
        return Place(self.keys[key].label, "/".join(Path(name).parts[2:]), damage, wrong)

    def _copy(self, name: str, damage: str, random_: random.Random) -> Store:
        copy = Path(tempfile.mkdtemp(dir=self.folder, prefix="damaged-"))
        shutil.copytree(self.store.root, copy, dirs_exist_ok=True)
        file = copy / name
        status = file.stat()
        DAMAGES[damage](file, random_)
        if file.exists():
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        return Store(copy)

    def _used(self, key: str, name: str, damage: str, random_: random.Random) -> str:
        """A run that has to read what is damaged."""
        store = self._copy(name, damage, random_)
        for child in self._children(self.keys[key]):
            for made in results(child):
                store.discard(made)
        return self._finish(store, name, "used as it was")

    def _repaired(self, key: str, name: str, damage: str, random_: random.Random) -> str:
        """`verify`, `verify --repair` and a run."""
        store = self._copy(name, damage, random_)
        changed = (self.store.root / name).read_bytes() != ((store.root / name).read_bytes() if (store.root / name).exists() else b"\0gone")
        verify = ["verify", str(self.recipe), "--store", str(store.root)]
        told = CliRunner().invoke(app, verify)
        said = f"{told.output} {told.exception}"
        if told.exception is not None and not isinstance(told.exception, CompresslabError | SystemExit):
            return f"verify: {told.exception!r}"
        if changed and Path(name).name not in HARMLESS and self.keys[key].label not in said:
            return f"verify does not name it: {said[-200:]}"
        repaired = CliRunner().invoke(app, [*verify, "--repair"])
        if repaired.exit_code != 0:
            return f"verify --repair: {repaired.output[-200:]} {repaired.exception}"
        return self._finish(store, name, "repaired")

    def _finish(self, store: Store, name: str, how: str) -> str:
        failures = run(self.plan, Store(store.root), Watcher()).failures
        found = deterministic(store)
        # What was gathered is not made again when all that reads it is there.
        spare = {node.key for node in self.plan.of_kind("gather") if not store.occupied(node.key)}
        expected = {name: content for name, content in self.expected.items() if name.split("/")[0] not in spare}
        shutil.rmtree(store.root)
        if failures:
            return f"{how}: {next(iter(failures.values())).cause}"
        return "" if found == expected else f"{how}: the store is not as an undisturbed run leaves it"

    def _children(self, node: Node) -> list[Node]:
        return [child for child in self.plan.nodes if node.key in child.needs]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given, folder = parser.parse_args(), Path(tempfile.mkdtemp(prefix="damages-"))
    random_, bad = random.Random(given.seed), 0
    try:
        damages = Damages(folder)
        for number in range(1, given.places + 1):
            place = damages.place(random_)
            bad += bool(place.wrong)
            print(f"{number:>3} {place.node:<18} {place.file:<34} {place.damage:<8} {place.wrong or 'found and made again'}", flush=True)
        print(f"{given.places} places: {bad} wrong")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
