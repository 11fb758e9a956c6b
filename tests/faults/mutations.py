"""A mutation fuzzer of everything that users give: each mutated file is read by the commands that read it, in a process of its own.

`python tests/faults/mutations.py --count 2000` prints how they ended by kind of file. A traceback, an exit code other than 0, 1 and 2, more
than 5 s, more than 300 MB and an escape sequence on the terminal are failures. `--keep FOLDER` keeps their files, to become part of the
corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import ground, mutated_loads
from faults.ground import Command, Target
from faults.mutated_loads import Preloaded

from compresslab.pins import cache_folder

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 5.0
MEGABYTES = 300
TRACEBACK = 99
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 1000, 2**17, 2**24, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf")),
    *("", " ", "x" * 10_000, "../../etc/passwd", "/dev/zero", "/dev/stdin", "offline:x", "hub:x", "published:x", "base", "x.gguf", "0777"),
    *("\x1b[31mred", "\u202eback", "\0", "\ud800", "=1+1", "{x}", "%s", "é" * 300, "1e999", "a.b[0]", "@", "owner/name@x"),
    *("[/b]", "[bold red]x", "[link=file:///etc/passwd]x[/link]", "../x.safetensors", "x/../../y.safetensors", "/x.safetensors"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": {"c": []}}}, list(range(2000)), {str(number): number for number in range(2000)}),
)
# As many shards as an index may name; not for recipes, which may have 20,000 values.
SHARDS = {f"w{number}": f"{number}.safetensors" for number in range(10_000)}
TOKENS = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", "\u202e".encode(), b"\r", b"\t", b"[" * 3000, b"{" * 3000, b'{"a":' * 3000),
    *(b"NaN", b"-1", b"1e999", b"9" * 5000, b"&a [*a]", b"*a", b"!!python/object:os.system ", b"---\n", b"<<: "),
    *(b": ", b"- ", b"'", b'"', b"#", b"[/b]", b"{% for x in range(10**9) %}{% endfor %}", b"{{ "),
)


class Ended(NamedTuple):
    """How a command ended: its exit code, what it printed, its seconds and megabytes, and whether it had to be stopped."""

    code: int
    said: str
    seconds: float
    megabytes: float
    stopped: bool

    @property
    def failure(self) -> str:
        """What is wrong with that; empty if nothing is."""
        if self.stopped or self.seconds > SECONDS:
            return "over 5 s"
        if self.code not in (0, 1, 2):
            return "traceback" if self.code == TRACEBACK else f"ended by {self.code}"
        if self.megabytes > MEGABYTES:
            return "memory"
        if any(letter in self.said for letter in "\x1b\x9b\u202e\0"):
            return "escape sequence"
        return ""


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Another content: its structure changed if it has one that can be read, else its bytes."""
    if chance.random() < 0.6:
        with contextlib.suppress(Exception):
            return _mutated_structure(content, chance)
    # What GGUF and safetensors files say of themselves is at their start, and most of their bytes are weights.
    head = chance.choice((200, 4000, 20_000)) if content[:4] == b"GGUF" or content[8:9] == b"{" else len(content)
    start, rest = content[:head], content[head:]
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.choice(BYTES)(start, chance)
    return start + rest


def _mutated_structure(content: bytes, chance: random.Random) -> bytes:
    if content.startswith(b"study:"):
        data = yaml.safe_load(content)
        for _ in range(chance.choice((1, 1, 2, 4))):
            _change(data, chance)
        return yaml.safe_dump(data, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
    start = 8 if content[:1] != b"{" else 0  # the header of a safetensors file
    data, end = json.JSONDecoder().raw_decode(content[start:].decode("utf-8", "replace"))
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change(data, chance)
    header = json.dumps(data).encode()
    return (len(header).to_bytes(8, "little") if start else b"") + header + content[start + end :]


def _change(data: Any, chance: random.Random) -> None:
    """Change one value somewhere in a tree of lists and dictionaries."""
    places = [(node, key) for node in _nodes(data) for key in (node if isinstance(node, dict) else range(len(node)))]
    node, key = chance.choice(places)
    what = chance.random()
    if what < 0.6:
        node[key] = chance.choice(ODD_VALUES) if key != "weight_map" or chance.random() < 0.8 else SHARDS
    elif what < 0.75:
        del node[key]
    elif what < 0.9:
        other, other_key = chance.choice(places)
        node[key] = json.loads(json.dumps(other[other_key], default=str))
    elif isinstance(node, dict):
        node[chance.choice(("", "x", "\x1b[1m", "\u202e", "method", str(chance.random())))] = node[key]
    else:
        node.extend([node[key]] * chance.choice((1, 50)))


def _nodes(data: Any) -> Iterator[Any]:
    if isinstance(data, dict | list):
        yield data
        for child in data.values() if isinstance(data, dict) else data:
            yield from _nodes(child)


def _place(content: bytes, chance: random.Random) -> int:
    return chance.randrange(len(content) + 1)


def _cut(content: bytes, chance: random.Random) -> bytes:
    start = _place(content, chance)
    return content[:start] + content[start + chance.choice((1, 5, 100)) :]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    start, times = _place(content, chance), chance.choice((1, 3, 200))
    return content[:start] + content[start : start + 20] * times + content[start:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start = _place(content, chance)
    return content[:start] + chance.choice(TOKENS) + content[start:]


def _noise(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(chance.choice((1, 4, 30))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _header(content: bytes, chance: random.Random) -> bytes:
    """Lengths and counts are at the start of binary files."""
    start = chance.randrange(24)
    return content[:start] + chance.choice((b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"\xff\xff\xff\x7f")) + content[start + 8 :]


def _number(content: bytes, chance: random.Random) -> bytes:
    """Another number behind the name of a field of a GGUF file, after its kind."""
    fields = [found.end() + 4 for found in re.finditer(rb"(general|llama|tokenizer)\.[a-z_.]+", content)]
    start = chance.choice(fields) if fields else _place(content, chance)
    size = chance.choice((1, 4, 8))
    number = chance.choice((0, 1, 3, 1000, 2**17, 2**24, 2**31, 2**62)) % 2 ** (8 * size)
    return content[:start] + number.to_bytes(size, "little") + content[start + size :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut,
    _repeat,
    _insert,
    _noise,
    _header,
    _number,
    lambda content, chance: content[: _place(content, chance)],
    lambda _, chance: chance.choice((b"", b"[]", b"null", b"NaN", b"0", b'"x"', b"{}", b"\n" * 100_000)),
    lambda _, chance: chance.randbytes(chance.choice((1, 100, 100_000))),
)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


PLACED: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "socket": _socket,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "random": lambda path: path.symlink_to("/dev/random"),
    "itself": lambda path: path.symlink_to(path.name),
    "sparse": _sparse,
    "missing": lambda _: None,
}


def put(file: Path, content: bytes | str) -> None:
    """Write a mutated file; a text is the name of something that is no such file."""
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    if isinstance(content, str):
        PLACED[content](file)
    else:
        file.write_bytes(content)


def call(command: Command, user: int | None = None) -> Ended:
    """Run a command in a forked process, as the user with this number if one is given."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only reads files, and needs no lock of another thread
        child = os.fork()
        if child == 0:
            _run_and_end(command, output.fileno(), user)
        stopped = False
        while (waited := os.wait4(child, os.WNOHANG))[0] == 0:
            if time.monotonic() - begun > 2 * SECONDS:
                os.kill(child, signal.SIGKILL)
                stopped = True
                waited = os.wait4(child, 0)
                break
            time.sleep(0.002)
        output.seek(0)
        said = output.read(200_000).decode("utf-8", "replace")
    peak = waited[2].ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    return Ended(os.waitstatus_to_exitcode(waited[1]), said, time.monotonic() - begun, peak, stopped)


def _run_and_end(command: Command, output: int, user: int | None) -> None:
    code = TRACEBACK
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", errors="backslashreplace", closefd=False) for stream in (1, 2))
        limit = psutil.Process().memory_info().vms + 4 * 2**30
        with contextlib.suppress(OSError, ValueError):  # macOS has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if user is not None:
            os.setresuid(user, user, user)
        ground.run(command)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        from compresslab.errors import CompresslabError

        if isinstance(error, CompresslabError):
            print(f"error: {error}")
            code = error.exit_code
        else:
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class World(NamedTuple):
    """The targets, and the process in which those that load models are called."""

    targets: dict[str, Target]
    preloaded: Preloaded | None = None

    def call(self, target: Target, command: Command) -> Ended:
        """Run one command of a target."""
        return self.preloaded.call(command) if target.loads and self.preloaded else call(command)


class Case(NamedTuple):
    """A mutated file and how one command ended on it."""

    target: str
    content: bytes | str
    command: str
    ended: Ended


def _name(command: Command) -> str:
    return " ".join(command) if isinstance(command, tuple) else command.__name__


def cases(world: World, count: int, seed: int) -> Iterator[Case]:
    """Mutate the targets in turn, `count` times in all, and run one command on each."""
    targets = world.targets
    names = list(targets)
    originals = {name: Path(target.file).read_bytes() for name, target in targets.items()}
    for number in range(count):
        name = names[number % len(names)]
        target, chance = targets[name], random.Random(f"{seed}-{number}")
        content = chance.choice(list(PLACED)) if chance.random() < 0.04 else mutate(originals[name], chance)
        command = target.commands[number // len(names) % len(target.commands)]
        put(Path(target.file), content)
        yield Case(name, content, _name(command), world.call(target, command))
        put(Path(target.file), originals[name])


def corpus(world: World) -> Iterator[Case]:
    """Every file of the corpus, by all commands of its target: what the fuzzer found before."""
    for file in (file for file in sorted(CORPUS.glob("*/*")) if file.parent.name in world.targets):
        target = world.targets[file.parent.name]
        original = Path(target.file).read_bytes()
        put(Path(target.file), file.read_bytes())
        for command in target.commands:
            yield Case(file.parent.name, file.name, _name(command), world.call(target, command))
        put(Path(target.file), original)


@contextlib.contextmanager
def world(loaders: bool = False) -> Iterator[World]:
    """The targets in a temporary folder, which is the current one meanwhile. `loaders`: whether models are loaded, too."""
    before, cache = Path.cwd(), os.environ.get("COMPRESSLAB_CACHE")
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        try:
            # A cache of its own, which the processes of another user can read, too; the machine need not be probed again.
            own = Path(folder, "cache")
            if (probes := cache_folder() / "machines").is_dir():
                shutil.copytree(probes, own / "machines")
            os.environ["COMPRESSLAB_CACHE"] = str(own)
            plan = ground.make(Path(folder))
            found = ground.targets(plan)
            for target in found.values():  # imports what the commands need, and shows that the unchanged files are valid
                for command in target.commands:
                    with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
                        ground.run(command)
            if not loaders:
                yield World(found)
                return
            with mutated_loads.Preloaded(Path(folder)) as preloaded:
                preloaded.ready()
                yield World(found | mutated_loads.targets(), preloaded)
        finally:
            os.chdir(before)
            os.environ.pop("COMPRESSLAB_CACHE")
            if cache is not None:
                os.environ["COMPRESSLAB_CACHE"] = cache


def main() -> None:
    """Print how the mutated files ended, by kind of file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    parser.add_argument("--only", help="a part of the names of the targets to try")
    given = parser.parse_args()
    keep = given.keep.resolve() if given.keep else None
    columns = ("exit 0", "exit 1", "exit 2", "traceback", "over 5 s", "memory", "escape sequence", "other")
    rows: dict[str, Counter[str]] = {}
    slowest, largest, failed = 0.0, 0.0, 0
    with world(loaders=True) as tried:
        if given.only:
            tried = tried._replace(targets={name: target for name, target in tried.targets.items() if given.only in name})
        for case in itertools.chain(corpus(tried), cases(tried, given.count, given.seed)):
            row = rows.setdefault(case.target, Counter())
            failure = case.ended.failure
            row[failure if failure in columns else "other" if failure else f"exit {case.ended.code}"] += 1
            slowest, largest = max(slowest, case.ended.seconds), max(largest, case.ended.megabytes)
            if failure:
                failed += 1
                print(f"{case.target} {case.command}: {failure} ({case.ended.seconds:.1f} s, {case.ended.megabytes:.0f} MB)")
                print("   ", " | ".join(case.ended.said.strip().splitlines()[-3:])[:400])
                if keep is not None:
                    _keep(case, keep)
    print(f"{'file':<22}" + "".join(f"{column:>17}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<22}" + "".join(f"{row[column]:>17}" for column in columns))
    print(f"{sum(row.total() for row in rows.values())} calls, {failed} failures; slowest {slowest:.1f} s, largest {largest:.0f} MB")
    sys.exit(int(failed > 0))


def _keep(case: Case, folder: Path) -> None:
    if isinstance(case.content, bytes):
        (folder / case.target).mkdir(parents=True, exist_ok=True)
        (folder / case.target / f"{random.Random(case.content).randrange(10**9):09}").write_bytes(case.content)


if __name__ == "__main__":
    main()
