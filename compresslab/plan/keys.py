"""Content keys: two nodes have the same key if and only if they must have the same result."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import Stamp, sha256_of
from compresslab.methods.installed import files_of, release_of
from compresslab.pins import cache_folder, wheels
from compresslab.recipe.model_folder import files_of as model_files_of
from compresslab.recipe.source import OFFLINE_MODELS, Source

KEY_LENGTH = 24
# The folder of digests of code in the user's cache. A change of what `_read_code` gives needs another name.
CODE_CACHE = "code-2"
# The folder of digests of files. Those before 2 were named by size and modification time alone.
DIGEST_CACHE = "digests-2"
# Digests of files from this size on are cached across processes: hashing 16 GB of weights takes ten seconds and more.
CACHED_FROM_BYTES = 64 * 2**20
# Modules and packages that a node's code imports and that do not decide its result, each with the reason. All other modules count, new
# ones included.
ARRANGING = {
    "compresslab": "the names of the public interface, each looked up when it is used",
    "compresslab.errors": "the kinds of failures; a node that fails has no result",
    "compresslab.evaluation.code_reading": "which tasks run what the model wrote; a task that is refused has no score",
    "compresslab.evaluation.code_tasks": "which tasks are refused; whether programs are trusted is in the keys",
    "compresslab.evaluation.sandbox": "what programs of a model may do; its code is in the keys of the scores that programs decide",
    "compresslab.files": "how files are written, whatever their content",
    "compresslab.inputs": "how files are opened, whatever their content",
    "compresslab.methods.adopt": "the settings; their values are in the keys, defaults included",
    "compresslab.methods.dimensions": "dimensions of models that are not loaded, for plans",
    "compresslab.methods.distill": "the settings and their costs; the values of settings are in the keys, defaults included",
    "compresslab.methods.method": "descriptions of methods; module, text and libraries are in the keys of a node",
    "compresslab.methods.registry": "which methods and formats there are; the keys name the modules of those that a node uses",
    "compresslab.methods.retrain": "the settings and their costs; the values of settings are in the keys, defaults included",
    "compresslab.models.progress": "reports of progress",
    "compresslab.pins": "where data wheels lie; their digests are in the keys",
    "compresslab.plan.graph": "the form of a plan; the keys name what its nodes do",
    "compresslab.printable": "how texts are printed",
    "compresslab.recipe.model_checks": "which names and files of a model are refused",
    "compresslab.recipe.model_config": "which configurations are refused; their digests are in the keys",
    "compresslab.recipe.model_folder": "which files of a model are refused; those that are read are in the keys",
    "compresslab.recipe.schema": "the fields of a recipe; their values are in the keys, defaults included",
    "compresslab.recipe.source": "which file or wheel a name denotes; its digest is in the keys",
    "compresslab.recipe.steps": "the fields of a step; their values are in the keys, defaults included",
    "compresslab.records": "the form of results, which carries a version of its own",
    "compresslab.runner.messages": "the form of a job; what it tells a worker is in the keys",
    "compresslab.runner.provenance": "what a record tells of where and when it was made",
    "compresslab.store": "where results are kept",
    "compresslab.suggestions": "what messages about misspelt names suggest",
    "compresslab.versions": "which packages are installed; those that decide are in the keys",
}
# What the workers do with a node. Its own code counts for every node, but not what it imports: each node needs a part of that.
NODES = "compresslab.runner.nodes"


def content_key(kind: str, **decides: Any) -> str:
    """Key of a node: a digest of the canonical JSON of its kind and of everything that decides its result."""
    canonical = json.dumps({"kind": kind, **decides}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_LENGTH]


def model_identity(source: Source, own_code: bool = False) -> dict[str, str]:
    """The identity of the weights that `source` names: of a folder, the digest of every file that a loader may read.

    `own_code` says whether the code that a folder brings is run.
    A Hub id without a revision is identified by its name alone; the plan warns that such a study cannot be repeated.

    Raises:
        BadInput: a file cannot be read or must not be loaded (`model_folder.files_of`).
    """
    if source.kind == "offline":
        return {"wheel": wheels()[OFFLINE_MODELS[source.name]].sha256}
    if source.kind == "hub":
        return {"hub": source.name, "revision": source.revision or ""}
    path = Path(source.name)
    try:
        if source.kind == "gguf":
            return {"gguf": _digest(path)}
        return {name: _digest(file) for name, file in model_files_of(path, own_code).items()}
    except OSError as error:
        raise BadInput(f"{error.filename or path} cannot be read ({error.strerror}); check its permissions") from error


def _digest(path: Path) -> str:
    """A file's digest, computed once while its stamp stays. Those of large files are cached across processes.

    The stamp contains inode and ctime, because a file can be edited and its size and modification time restored. On file systems without
    stable inodes a digest is computed more often than necessary.
    """
    stamp = Stamp.of(path.stat())
    if stamp.size < CACHED_FROM_BYTES or not stamp.settled:
        return sha256_of(path)
    return cached(DIGEST_CACHE, "\0".join([str(path.resolve()), *map(str, stamp)]), lambda: sha256_of(path))


def cached(folder: str, name: str, compute: Callable[[], str]) -> str:
    """The result of `compute`, from the cache if an earlier process stored it intact under this name."""
    file = cache_folder() / folder / hashlib.sha256(name.encode()).hexdigest()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        checksum, _, value = file.read_text(encoding="utf-8").partition("\n")
        if checksum == hashlib.sha256(value.encode()).hexdigest():
            return value
    value = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        file.parent.mkdir(parents=True, exist_ok=True)
        # The checksum tells a file that is not whole, so nothing needs to be flushed to the disk.
        part = file.with_name(f".{secrets.token_hex(8)}")
        part.write_text(f"{hashlib.sha256(value.encode()).hexdigest()}\n{value}", encoding="utf-8")
        part.replace(file)
    return value


@functools.cache
def code_version(*modules: str) -> str:
    """Digest of the code of some modules and of all modules of this package that they import, except those in `ARRANGING`.

    Only executed code counts. Comments, layout, docstrings, other bare strings and imports for type checkers do not, so changing them
    keeps the results in a store. Modules that are imported by a computed name are not found; the caller names them.
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
        digest.update(name.encode() + b"\0" + _code(name).digest.encode() + b"\0")
    return digest.hexdigest()[:KEY_LENGTH]


def node_code(*modules: str) -> str:
    """Digest of the code that makes a node: of `NODES`, and of the modules that it calls for nodes of this kind."""
    return f"{_code(NODES).digest[:KEY_LENGTH]}-{code_version(*modules)}"


class _Code(NamedTuple):
    """A module's part in keys: a digest of its executed code, and the imported modules that count."""

    digest: str
    imports: tuple[str, ...]


@functools.cache
def _code(module: str) -> _Code:
    if module.split(".")[0] != "compresslab":
        return _foreign_code(module)
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"no module {module} to compute the version of")
    # The name contains Python's version because syntax trees differ between versions. The result is cached because parsing every module
    # takes 0.4 s.
    digest, *imports = cached(CODE_CACHE, f"{sys.version_info[:2]}\0{source}", lambda: _read_code(source)).splitlines()
    if module in _modules() and any(name.startswith(".") for name in imports):
        raise ValueError(f"{module} has a relative import, which keys do not follow; import by the full name")
    return _Code(digest, _counting(imports))


def _foreign_code(module: str) -> _Code:
    """The code of a module of another package: all of that package, compiled files too, and its release."""
    digest, imports = hashlib.sha256(f"{module}\0{release_of(module)}".encode()), list[str]()
    for name, file in files_of(module).items():
        try:
            content = file.read_bytes()
        except OSError:  # the file cannot be read when it is imported either
            content = b""
        held = f"{sys.version_info[:2]}\0{hashlib.sha256(content).hexdigest()}"
        code, *imported = cached(CODE_CACHE, held, functools.partial(_read_any, content)).splitlines()
        digest.update(f"\0{name}\0{code}".encode())
        imports += imported
    return _Code(digest.hexdigest(), _counting(imports))


def _read_any(content: bytes) -> str:
    """What `_read_code` gives for a file of Python; for any other file, a digest of its bytes."""
    try:
        return _read_code(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).hexdigest()


def _counting(imports: Iterable[str]) -> tuple[str, ...]:
    """The modules of this package that some imports execute and that count."""
    return tuple(dict.fromkeys(name for line in imports for name in _imported_modules(line) if not _arranges(name)))


@functools.cache
def _imported_modules(name: str) -> tuple[str, ...]:
    """The modules of this package that importing `name` executes: packages from the outermost, then the module, if `name` is one."""
    if not name.startswith("compresslab"):
        return ()
    parts = name.split(".")
    starts = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return tuple(start for start in starts if start in _modules())


@functools.cache
def _arranges(module: str) -> bool:
    parts = module.split(".")
    return module in ARRANGING or any(".".join(parts[:count]) in ARRANGING for count in range(2, len(parts)))


def _read_code(source: str | bytes) -> str:
    """The digest of a module's executed code, then one line for each name that may be an imported module."""
    tree = ast.parse(source)
    tree.body = _executed_statements(tree.body)
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    return "\n".join([hashlib.sha256(ast.dump(tree).encode()).hexdigest(), *imports])


def _executed_statements(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without bare strings and without code for type checkers."""
    kept: list[ast.stmt] = []
    for node in statements:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            kept += _executed_statements(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            node.names = [alias for alias in node.names if alias.name != "TYPE_CHECKING"]
            if not node.names:
                continue
        for block in _blocks(node):
            block[:] = _executed_statements(block)
        kept.append(node)
    return kept


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements directly inside a statement."""
    for field in ("body", "orelse", "finalbody"):
        if isinstance(block := getattr(node, field, None), list):
            yield block
    for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield branch.body


def _source(module: str) -> str | None:
    """The text of a module of this package or of a package's `__init__`; `None` if there is none."""
    file = _modules().get(module)
    return Path(file).read_text(encoding="utf-8") if file is not None else None


@functools.cache
def _modules() -> dict[str, str]:
    """The file of every module of this package, by name. Listing all folders once is faster than testing each imported name."""
    found = {}
    root = str(resources.files("compresslab"))
    for folder, _, files in os.walk(root):
        package = ".".join(["compresslab", *Path(folder).relative_to(root).parts])
        for file in files:
            if file.endswith(".py"):
                found[package if file == "__init__.py" else f"{package}.{file.removesuffix('.py')}"] = f"{folder}/{file}"
    return found
