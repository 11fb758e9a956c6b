"""Which packages grade the answers of lm-eval's own tasks, found in the tasks' files without running them.

A task's file names functions, other files, metrics and, for a group, members. The files of its functions name packages. A package that is
imported by a computed name is not found.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from compresslab.catalog import stock_tasks
from compresslab.errors import BadInput

INCLUDE = re.compile(r"^include: *[\"']?([^\s\"']+)", re.MULTILINE)
FUNCTION = re.compile(r"!function +[\"']?([\w./]+)\.\w+")
METRIC = re.compile(r"^[ -]*[\"']?(?:metric|aggregation)[\"']?: *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)
GROUP = re.compile(r"^(?:group: *\S|task: *$)", re.MULTILINE)
MEMBER = re.compile(r"^ *- *(?:(?:task|group): *)?[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)
# Packages of tasks that carry data and do not grade; those of models are in the keys already.
CARRYING = frozenset({"datasets", "numpy", "tqdm", "requests", "packaging", "typing_extensions", "torch", "transformers", "lm_eval"})
# What some packages grade with without being asked by the task: parsers, tokenizers and stemmers.
USES = {
    "math_verify": ("latex2sympy2_extended", "sympy", "antlr4"),
    **dict.fromkeys(("sympy", "latex2sympy2_extended"), ("antlr4",)),
    "rouge_score": ("nltk",),
}
# Packages of the hub's metrics, by the metric's name.
HUB_METRICS = {
    **{"rouge": ("rouge_score", "nltk"), "meteor": ("nltk",), "bertscore": ("bert_score",), "bleurt": ("bleurt",), "comet": ("comet",)},
    **dict.fromkeys(("sacrebleu", "chrf", "ter"), ("sacrebleu",)),
    **dict.fromkeys(("wer", "cer"), ("jiwer",)),
    **dict.fromkeys(("accuracy", "f1", "precision", "recall", "matthews_correlation"), ("sklearn",)),
}


@functools.cache
def graders(name: str) -> tuple[str, ...]:
    """The modules of other packages that grade the answers of lm-eval's task or group `name`, sorted.

    Raises:
        BadInput: there is no such task.
    """
    waiting = list(_defining(stock_tasks.find(name), name))
    seen: set[Path] = set()
    found: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        files, packages = _of_python(file) if file.suffix == ".py" else _of_task(file)
        waiting += files
        found |= packages
    found |= {other for package in found for other in USES.get(package, ())}
    return tuple(sorted(found - CARRYING - sys.stdlib_module_names))


def _root() -> Path:
    return stock_tasks.tasks_folder().resolve()


def _defining(folder: Path, name: str) -> list[Path]:
    """The files in a task's folder that define the task, tag or group `name`, or else those that list it."""
    return _files(folder, name, stock_tasks.NAME_LINE) or _files(folder, name, stock_tasks.LIST_ITEM_LINE)


def _files(folder: Path, name: str, form: re.Pattern[str]) -> list[Path]:
    return [file for file, text in _texts(folder.resolve()).items() if name in form.findall(text)]


@functools.cache
def _texts(folder: Path) -> dict[Path, str]:
    return {file: file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.yaml"))}


def _of_task(file: Path) -> tuple[list[Path], set[str]]:
    """The files that a task's file names, and the packages of its metrics."""
    text = file.read_text(encoding="utf-8", errors="replace")
    files = [(file.parent / name).resolve() for name in INCLUDE.findall(text)]
    packages: set[str] = set()
    for module in FUNCTION.findall(text):
        own = file.parent / f"{module.replace('.', '/')}.py"
        if own.is_file():
            files.append(own.resolve())
        else:
            packages.add(module.split(".")[0])
    for metric in METRIC.findall(text):
        # One that lm-eval does not have is the hub's, unless a function of the task makes it.
        packages |= _of_metrics().get(metric, {"evaluate", *HUB_METRICS.get(metric, ())})
    if GROUP.search(text):
        for member in MEMBER.findall(text):
            files += _members(file, member)
    return files, packages


def _members(file: Path, name: str) -> list[Path]:
    """The files that define what a group lists; none if it is no task's name but another list's item."""
    own = _root() / file.relative_to(_root()).parts[0]
    if found := _files(own, name, stock_tasks.NAME_LINE):
        return found
    try:
        return _defining(stock_tasks.find(name, suggesting=False), name)
    except BadInput:
        return []


def _of_python(file: Path) -> tuple[list[Path], set[str]]:
    """The files of tasks that a module imports, and the packages."""
    root, files, packages = _root(), list[Path](), set[str]()
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # it cannot be imported either
        return [], set()
    for name in _imports(tree, file, root):
        if name.startswith("lm_eval.tasks."):
            places = [root.joinpath(*parts) for parts in (name.split(".")[2:], name.split(".")[2:-1]) if parts]
        elif name.startswith("lm_eval.api.metrics."):
            packages |= _of_metrics().get(name.rpartition(".")[2], set())
            continue
        else:
            places = [file.parent / name.split(".")[0]]
        own = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
        files += own
        if not own:
            packages.add(name.split(".")[0])
    if "evaluate" in packages:
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        packages |= {package for text in texts for package in HUB_METRICS.get(text, ())}
    return files, packages


def _imports(tree: ast.AST, file: Path, root: Path) -> Iterator[str]:
    """The full names that a module of a task imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parts = ("lm_eval", "tasks", *file.relative_to(root).parts[: -node.level])
                start = ".".join([*parts, *([start] if start else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


@functools.cache
def _of_metrics() -> dict[str, set[str]]:
    """The packages of lm-eval's own metrics and aggregations, by their names and the names of their functions."""
    tree = ast.parse((stock_tasks.tasks_folder().parent / "api" / "metrics.py").read_bytes())
    top = {alias.asname or alias.name: alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    found: dict[str, set[str]] = {}
    aggregated: dict[str, str] = {}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        used = {top[node.id] for node in ast.walk(function) if isinstance(node, ast.Name) and node.id in top}
        used |= {(node.module or "").split(".")[0] for node in ast.walk(function) if isinstance(node, ast.ImportFrom)}
        found[function.name] = used
        for call in (one for one in function.decorator_list if isinstance(one, ast.Call)):
            given = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords if isinstance(word.value, ast.Constant)}
            name = given.get("metric") or next((ast.literal_eval(one) for one in call.args if isinstance(one, ast.Constant)), function.name)
            found[name] = found.get(name, set()) | used
            aggregated[name] = given.get("aggregation", name)
    return {name: used | found.get(aggregated.get(name, name), set()) for name, used in found.items()}
