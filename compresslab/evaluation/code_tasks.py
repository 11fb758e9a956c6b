"""Which of lm-eval's tasks run what the model wrote, and whether only the sandbox does.

A task says so itself (`unsafe_code`), or the functions that score its answers do: they are read, as far as they are lm-eval's tasks' own,
for names that run a text as code. A name is enough; what it is called with is not followed.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from lm_eval.api.task import Task

from compresslab.errors import BadInput
from compresslab.evaluation.sandbox import programs
from compresslab.evaluation.sandbox.code_eval import CodeEval

# Names that run a text as code: the interpreter's, those that start other programs, and sympy's, which call `eval`. Not among them:
# `ast.literal_eval` and sympy's `parse_latex`, which are parsers, and math_verify, which gives `parse_expr` digits and operators only.
RUNNING = frozenset(
    {
        *("eval", "exec", "__import__", "import_module", "runpy", "pickle", "marshal", "ctypes"),
        *("subprocess", "Popen", "system", "popen", "execv", "execve", "execvp", "posix_spawn", "spawnv"),
        *("parse_expr", "sympify"),
    }
)
# Metrics of the hub that run programs: Python's and Prolog's (slr_bench).
HUB_METRICS = ("code_eval", "apps_metric", "verifiablerewards")
TASKS = "lm_eval.tasks"
# The parts of a task's configuration that see what the model wrote.
SCORING = ("process_results", "metric_list", "filter_list")


class Running(NamedTuple):
    """How a task runs what the model wrote.

    Attributes:
        sandboxed: the metrics that run it in the sandbox. otherwise: places that run it outside, as "function (name)".
        declared: whether the task says that it runs it.
    """

    sandboxed: tuple[CodeEval, ...]
    otherwise: tuple[str, ...]
    declared: bool

    @property
    def runs(self) -> bool:
        """Whether the task runs what the model wrote, wherever."""
        return bool(self.declared or self.sandboxed or self.otherwise)

    @property
    def confined(self) -> bool:
        """Whether it is run in the sandbox alone."""
        return bool(self.sandboxed) and not self.otherwise


def check(name: str, task: Task, *, run_code: bool, trust_code: bool) -> None:
    """Refuse a task that would run what the model wrote where that is not allowed, and tell its metric whether programs are trusted.

    Raises:
        BadInput: it is not allowed, the task runs it by its own means and not in the sandbox, or there is no sandbox.
    """
    how = running(task)
    if not how.runs:
        return
    if not run_code:
        raise BadInput(
            f"{name} runs programs that the model wrote; set evaluate.run_code: true if that may happen here "
            "(with lm-eval's command line: --confirm_run_unsafe_code)"
        )
    if not how.confined and not trust_code:
        means = ", ".join(how.otherwise) or "its own metric"
        raise BadInput(f"{name} runs what the model wrote by its own means ({means}), which no sandbox confines. {programs.TRUST}")
    programs.check(trust_code)
    for metric in how.sandboxed:
        metric.trusted = trust_code


def running(task: Task) -> Running:
    """How a task runs what the model wrote."""
    metrics: list[CodeEval] = []
    places: set[str] = set()
    for value in _reachable(_scoring(task)):
        if isinstance(value, CodeEval):
            metrics.append(value)
        elif (kind := type(value).__module__).startswith("evaluate_modules.") and any(name in kind.lower() for name in HUB_METRICS):
            places.add(f"{kind}: a metric of the hub")
        elif isinstance(value, FunctionType):
            places |= {f"{value.__module__}.{value.__name__}: {name}" for name in _names(value.__code__) & RUNNING}
    return Running(tuple(metrics), tuple(sorted(places)), bool(getattr(task, "UNSAFE_CODE", False)))


def _scoring(task: Task) -> Iterator[Any]:
    """What scores a task: parts of its configuration, and the methods of a task that is a class of its own."""
    yield from (getattr(task.config, part, None) for part in SCORING)
    yield from (getattr(task, "_metric_fn_list", None), getattr(task, "_filters", None))
    for kind in type(task).__mro__:
        if kind.__module__.startswith(TASKS):
            yield from vars(kind).values()


def _reachable(roots: Iterable[Any]) -> Iterator[Any]:
    """The roots and what they lead to: members of containers, bound arguments, and what a function of the tasks names."""
    waiting, seen = list(roots), set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        waiting += _next(value)


def _next(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, FunctionType):
        return _named_by(value) if value.__module__ is None or _of_a_task(value.__module__) else []
    if isinstance(value, type):
        return list(vars(value).values()) if _of_a_task(value.__module__) else []
    return list(vars(value).values()) if type(value).__module__.startswith(("lm_eval.filters", "lm_eval.api.filter", TASKS)) else []


def _of_a_task(module: str) -> bool:
    """Whether a module defines a task. lm-eval names those of folders elsewhere by their path."""
    return module.startswith((TASKS, "/"))


def _named_by(function: FunctionType) -> Iterator[Any]:
    """The values that a function refers to by name: globals, members of modules, cells, defaults."""
    names = _names(function.__code__)
    found = [function.__globals__[name] for name in names if name in function.__globals__ and not hasattr(builtins, name)]
    for value in found:
        if isinstance(value, ModuleType):
            if _of_a_task(value.__name__):
                yield from (vars(value)[name] for name in names if name in vars(value))
        else:
            yield value
    yield from (cell.cell_contents for cell in function.__closure__ or () if cell != type(cell)())
    yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())


def _names(code: CodeType) -> set[str]:
    """All names in a function's code and in the functions within it. A name of a module is taken apart."""
    names = {part for name in code.co_names for part in (name, *name.split("."))}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names
