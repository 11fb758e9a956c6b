"""Which of lm-eval's tasks run what the model wrote, and whether only the sandbox does.

A task says so itself (`unsafe_code`), or the functions that score its answers do: `code_reading` looks in them for what
runs a text as code. That it is named is enough; what it is called with is not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lm_eval.api.task import Task

from compresslab.errors import BadInput
from compresslab.evaluation.code_reading import TASKS, read
from compresslab.evaluation.sandbox import programs
from compresslab.evaluation.sandbox.code_eval import CodeEval

# Metrics of the hub that run programs: Python's and Prolog's (slr_bench).
HUB_METRICS = ("code_eval", "apps_metric", "verifiablerewards")
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


def not_allowed(name: str) -> str:
    """What a task that runs programs needs."""
    return (
        f"{name} runs programs that the model wrote; set evaluate.run_code: true if that may happen here "
        "(with lm-eval's command line: --confirm_run_unsafe_code)"
    )


def check(name: str, task: Task, *, run_code: bool, trust_code: bool) -> None:
    """Refuse a task that would run what the model wrote where that is not allowed, and tell its metric whether programs are trusted.

    Raises:
        BadInput: it is not allowed, the task runs it by its own means and not in the sandbox, or there is no sandbox.
    """
    how = running(task)
    if not how.runs:
        return
    if not run_code:
        raise BadInput(not_allowed(name))
    if not how.confined and not trust_code:
        means = ", ".join(how.otherwise) or "its own metric"
        raise BadInput(f"{name} runs what the model wrote by its own means ({means}), which no sandbox confines. {programs.TRUST}")
    programs.check(trust_code)
    for metric in how.sandboxed:
        metric.trusted = trust_code


def running(task: Task) -> Running:
    """How a task runs what the model wrote."""
    found = read(_scoring(task), _packages(task))
    kinds = {str(type(value).__module__) for value in found.values}
    hub = {f"{kind}: a metric of the hub" for kind in kinds if kind.startswith("evaluate_modules.") and _runs_programs(kind)}
    metrics = tuple(value for value in found.values if isinstance(value, CodeEval))
    return Running(metrics, tuple(sorted(found.places | hub)), bool(getattr(task, "UNSAFE_CODE", False)))


def _runs_programs(kind: str) -> bool:
    return any(name in kind.lower() for name in HUB_METRICS)


def _scoring(task: Task) -> Iterator[Any]:
    """What scores a task: parts of its configuration, and the methods of a task that is a class of its own."""
    yield from (getattr(task.config, part, None) for part in SCORING)
    yield from (getattr(task, part, None) for part in ("_metric_fn_list", "_aggregation_list", "_filters"))
    for kind in type(task).__mro__:
        if kind.__module__.startswith(TASKS):
            yield from vars(kind).values()


def _packages(task: Task) -> Iterator[str]:
    """The packages that a task's configuration takes its functions from (`!function package.module.name`)."""
    config = task.config
    metrics = [value for metric in getattr(config, "metric_list", None) or () for value in metric.values()]
    for function in (getattr(config, "process_results", None), *metrics):
        module = getattr(function, "__module__", None)
        if callable(function) and isinstance(module, str) and not module.startswith(("lm_eval.", "/")):
            yield module.split(".")[0]
