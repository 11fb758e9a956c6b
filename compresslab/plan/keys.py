"""Content keys: two nodes have the same key exactly when they must give the same result."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.methods.installed import source_of
from compresslab.pins import cache_folder, wheels
from compresslab.recipe.source import OFFLINE_MODELS, Source, file_sha256

KEY_LENGTH = 24
# Files from this size on are hashed once and not in every process: 16 GB of weights take ten seconds and more.
REMEMBERED_FROM = 64 * 2**20
# Rooms whose code decides what a node computes. Methods, recipe, plan, runner and report only arrange it, but for how shares become
# numbers.
DECIDING_ROOMS = ("algorithms", "models", "steps", "evaluation")
DECIDING_MODULES = tuple(f"compresslab.methods.{name}" for name in ("amounts", "depth", "width", "sparse"))
# Files of a model folder that its weights, its tokenizer or its code are read from.
MODEL_FILES = (".json", ".safetensors", ".jinja", ".model", ".txt", ".py")


def content_key(kind: str, **decides: Any) -> str:
    """Key of a node: a digest of its kind and of everything that decides its result, as canonical JSON."""
    canonical = json.dumps({"kind": kind, **decides}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_LENGTH]


def model_identity(source: Source) -> dict[str, str]:
    """What decides the weights that `source` names.

    A Hub id without a revision is identified by its name alone; the plan warns that such a study cannot be repeated.
    """
    if source.kind == "offline":
        return {"wheel": wheels()[OFFLINE_MODELS[source.name]].sha256}
    if source.kind == "hub":
        return {"hub": source.name, "revision": source.revision or ""}
    path = Path(source.name)
    if path.is_file():
        return {"gguf": _digest(path, path.stat().st_size, path.stat().st_mtime_ns)}
    files = sorted(file for file in path.iterdir() if file.suffix in MODEL_FILES and file.is_file())
    return {file.name: _digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    """A file's digest, computed once as long as its size and time of change stay; of large files it is kept in the cache."""
    if size < REMEMBERED_FROM:
        return file_sha256(path)
    return _remembered("digests", f"{path.resolve()}\0{size}\0{modified}", lambda: file_sha256(path))


def _remembered(folder: str, name: str, compute: Callable[[], str]) -> str:
    """What `compute` gives, from the cache if an earlier process left it there under this name."""
    memory = cache_folder() / folder / hashlib.sha256(name.encode()).hexdigest()
    with contextlib.suppress(OSError):
        return memory.read_text()
    value = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        part = memory.with_suffix(f".{os.getpid()}")
        part.write_text(value)
        part.replace(memory)
    return value


@functools.cache
def code_version(*modules: str) -> str:
    """Digest of the code behind some modules: themselves and all that they import from the deciding rooms.

    Comments, docstrings and layout do not count, so a better explanation costs nobody their cache.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _code(name).imports
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode() + b"\0" + _code(name).meaning.encode() + b"\0")
    return digest.hexdigest()[:KEY_LENGTH]


class _Code(NamedTuple):
    """A module as far as keys go: a digest of its syntax tree without docstrings, and what it imports from the deciding rooms."""

    meaning: str
    imports: tuple[str, ...]


@functools.cache
def _code(module: str) -> _Code:
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"no module {module} to compute the version of")
    # Python's version because syntax trees differ between versions; remembered because parsing every module takes 0.4 s.
    # Whoever changes what `_read` gives changes the folder's name, too.
    meaning, *imports = _remembered("code", f"{sys.version_info[:2]}\0{source}", lambda: _read(source)).splitlines()
    return _Code(meaning, tuple(name for name in imports if _decides(name)))


def _read(source: str) -> str:
    """The digest of a module's syntax tree without docstrings and, a line each, all names that it may import a module by."""
    tree = ast.parse(source)
    imports = []
    for node in _statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return "\n".join([hashlib.sha256(ast.dump(tree).encode()).hexdigest(), *imports])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The module, its statements and the statements in them. Expressions hold no imports and are passed over, for speed."""
    yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield from _statements(child)


def _decides(name: str) -> bool:
    if name in DECIDING_MODULES:
        return True
    parts = name.split(".")
    return parts[0] == "compresslab" and len(parts) > 2 and parts[1] in DECIDING_ROOMS and _source(name) is not None


@functools.cache
def _source(module: str) -> str | None:
    """A module's text, or `None` if there is none (the name of a function, say). Of another package's module, the whole package's."""
    if module.split(".")[0] != "compresslab":
        return source_of(module)
    file = resources.files("compresslab").joinpath(*module.split(".")[1:-1], module.rsplit(".", 1)[-1] + ".py")
    return file.read_text(encoding="utf-8") if file.is_file() else None
