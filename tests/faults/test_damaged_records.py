"""Empty and damaged records, notes and results: every command that reads them ends in one message, or goes on without them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import ground, mutations
from faults.ground import STORE, Target
from faults.mutations import PLACED, Ended, call, put

pytestmark = pytest.mark.slow
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]
READABLE = all(path.stat().st_mode & 0o5 == 0o5 for path in (ROOT, *ROOT.parents))
DAMAGES: dict[str, Callable[[bytes], bytes | str]] = {
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "binary rubbish": lambda content: bytes(range(256)) * (len(content) // 256 + 1),
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "not a number": lambda _: b"NaN",
    "deep": lambda _: b'{"version":' * 20_000,
    "of other types": lambda content: content.replace(b": 1", b': "x"').replace(b"[", b"{").replace(b"]", b"}"),
    "numbers without end": lambda content: content.replace(b": 1", b": 1e999"),
    **{name: lambda _, name=name: name for name in PLACED},
}
# Commands that read a study's report, and those that read its store.
REPORT = (("show", "a"), ("show", "a", "bnb-nf4"), ("show", "a", "bnb-nf4", "--json"), ("compare", "a", "b", "--json"))
EXPORT = ("export", "stored", "small", "exported", "--store", "store")
READERS = {"study": REPORT, **dict.fromkeys(("note", "record", "cost", "digests", "items"), (*STORE, EXPORT))}


CASES = [(target, damage) for target in READERS for damage in DAMAGES]


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Target]]:
    with mutations.world() as made:
        # Imports what this command needs: another user may not be able to read the interpreter's files.
        with contextlib.suppress(SystemExit):
            ground.run(EXPORT)
        yield made.targets


def problem(ended: Ended) -> str:
    return ended.failure if ended.failure != "memory" else ""


@pytest.mark.parametrize(("target", "damage"), CASES)
def test_a_damaged_file_is_one_message(world: dict[str, Target], target: str, damage: str):
    file = Path(world[target].file)
    original = file.read_bytes()
    try:
        put(file, DAMAGES[damage](original))
        for command in READERS[target]:
            ended = call(command)
            shutil.rmtree("exported", ignore_errors=True)
            assert problem(ended) == "", f"{command}: {ended}"
            assert len(ended.said.splitlines()) < 40
    finally:
        put(file, original)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.skipif(not READABLE, reason="no other user may read this folder, and so none can run what it holds")
@pytest.mark.parametrize("target", READERS)
def test_a_file_without_permission_is_one_message(world: dict[str, Target], target: str):
    file = Path(world[target].file)
    for path in [Path.cwd(), *Path.cwd().rglob("*")]:
        path.chmod(0o755)
    file.chmod(0)
    try:
        for command in READERS[target]:
            ended = call(command, NOBODY)
            assert problem(ended) == "", f"{command}: {ended}"
    finally:
        file.chmod(0o644)
