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

from compresslab.files import atomic_write
from compresslab.methods.installed import source_of
from compresslab.pins import cache_folder, wheels
from compresslab.recipe.source import OFFLINE_MODELS, Source, file_sha256

KEY_LENGTH = 24
# Files from this size on are hashed once and not in every process: 16 GB of weights take ten seconds and more.
REMEMBERED_FROM = 64 * 2**20
# Modules and rooms that a node's code imports and that do not decide its result, each with the reason. Every other module counts, so a new
# one does until somebody says why not.
ARRANGING = {
    "compresslab": "the names of the public interface, each looked up when it is used",
    "compresslab.errors": "what a failure is called; a node that fails has no result",
    "compresslab.files": "how a file comes to its place, whatever it holds",
    "compresslab.methods.adopt": "what may be set; what is set is in the keys, defaults included",
    "compresslab.methods.dimensions": "what is known of a model before it is loaded, for plans",
    "compresslab.methods.distill": "what may be set, and what that costs; what is set is in the keys, defaults included",
    "compresslab.methods.method": "what a method says of itself; its module, text and libraries are in the keys of its nodes",
    "compresslab.methods.registry": "which methods and formats there are; the keys name the modules of those that a node uses",
    "compresslab.methods.retrain": "what may be set, and what that costs; what is set is in the keys, defaults included",
    "compresslab.models.progress": "what work tells of how far it is",
    "compresslab.pins": "where data wheels lie; their digests are in the keys",
    "compresslab.recipe.schema": "what a recipe may say; what it says is in the keys, defaults included",
    "compresslab.recipe.source": "which file or wheel a name means; its digest is in the keys",
    "compresslab.recipe.steps": "what a step may say; what it says is in the keys, defaults included",
    "compresslab.records": "the form of results, which carries a version of its own",
    "compresslab.versions": "which packages are installed; those that decide are in the keys",
}
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
    """What `compute` gives, from the cache if an earlier process left it there whole under this name."""
    memory = cache_folder() / folder / hashlib.sha256(name.encode()).hexdigest()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        checksum, _, value = memory.read_text(encoding="utf-8").partition("\n")
        if checksum == hashlib.sha256(value.encode()).hexdigest():
            return value
    value = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(memory, f"{hashlib.sha256(value.encode()).hexdigest()}\n{value}")
    return value


@functools.cache
def code_version(*modules: str) -> str:
    """Digest of the code behind some modules: themselves and all that they import of this package, but for what only arranges.

    What nobody executes does not count: comments, layout, docstrings and other bare strings, imports for type checkers. So a better
    explanation costs nobody their cache. Modules that are imported by a name put together at run time are not seen; give them here.
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
    """A module as far as keys go: a digest of what it executes, and the modules that it imports and that count."""

    meaning: str
    imports: tuple[str, ...]


@functools.cache
def _code(module: str) -> _Code:
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"no module {module} to compute the version of")
    # Python's version because syntax trees differ between versions; remembered because parsing every module takes 0.4 s.
    # Whoever changes what `_read` gives changes the folder's name, too.
    meaning, *imports = _remembered("code-2", f"{sys.version_info[:2]}\0{source}", lambda: _read(source)).splitlines()
    if module in _modules() and any(name.startswith(".") for name in imports):
        raise ValueError(f"{module} has a relative import, which keys do not follow; import by the full name")
    return _Code(meaning, tuple(dict.fromkeys(name for line in imports for name in _executed(line) if not _arranges(name))))


@functools.cache
def _executed(name: str) -> tuple[str, ...]:
    """The modules of this package that importing `name` executes: packages from the outermost, then the module itself, if it is one."""
    if not name.startswith("compresslab"):
        return ()
    parts = name.split(".")
    starts = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return tuple(start for start in starts if start in _modules())


@functools.cache
def _arranges(module: str) -> bool:
    parts = module.split(".")
    return module in ARRANGING or any(".".join(parts[:count]) in ARRANGING for count in range(2, len(parts)))


def _read(source: str) -> str:
    """The digest of what a module executes and, a line each, all names that it may import a module by."""
    tree = ast.parse(source)
    tree.body = _without_words(tree.body)
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    return "\n".join([hashlib.sha256(ast.dump(tree).encode()).hexdigest(), *imports])


def _without_words(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without what nobody executes: bare strings, and what only type checkers see."""
    kept: list[ast.stmt] = []
    for node in statements:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            kept += _without_words(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            node.names = [alias for alias in node.names if alias.name != "TYPE_CHECKING"]
            if not node.names:
                continue
        for block in _blocks(node):
            block[:] = _without_words(block)
        kept.append(node)
    return kept


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements right inside a statement."""
    for field in ("body", "orelse", "finalbody"):
        if isinstance(block := getattr(node, field, None), list):
            yield block
    for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield branch.body


def _source(module: str) -> str | None:
    """The text of a module or of a package's `__init__`, `None` if there is none. Of another package's module, the whole package's."""
    if module.split(".")[0] != "compresslab":
        return source_of(module)
    file = _modules().get(module)
    return Path(file).read_text(encoding="utf-8") if file is not None else None


@functools.cache
def _modules() -> dict[str, str]:
    """The file of every module of this package, by name. One walk over its folders is quicker than a question for each imported name."""
    found = {}
    root = str(resources.files("compresslab"))
    for folder, _, files in os.walk(root):
        package = ".".join(["compresslab", *Path(folder).relative_to(root).parts])
        for file in files:
            if file.endswith(".py"):
                found[package if file == "__init__.py" else f"{package}.{file.removesuffix('.py')}"] = f"{folder}/{file}"
    return found
