"""Tasks that run what the model wrote: which they are, and that they run it in the sandbox or not at all."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import lm_eval.evaluator
import pytest

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation import __main__ as command
from compresslab.evaluation import code_tasks, harness, tasks
from compresslab.evaluation.sandbox.code_eval import CodeEval, own_code_eval

OUTSIDE = [
    ("cruxeval.utils", "pass_at_k", "unsafe_execute: exec"),
    ("longproc.metrics", "process_results_pseudo_to_code", "_evaluate_spoc_code: subprocess"),
    ("longproc.metrics", "process_results_countdown", "_evaluate_countdown_final_solution: eval"),
    ("score.math.utils_math", "process_results", r"symbolic_equal: sympy\.parsing\.sympy_parser\.parse_expr"),
]


def task(module: str, function: str, **attributes: Any) -> Any:
    """A task that one function of lm-eval's scores."""
    with own_code_eval(trusted=True):
        scoring = getattr(import_module(f"lm_eval.tasks.{module}"), function)
    config = SimpleNamespace(process_results=None, metric_list=[{"metric": scoring}], filter_list=None)
    return SimpleNamespace(config=config, **attributes)


@pytest.mark.parametrize(("module", "function", "place"), OUTSIDE)
def test_a_task_that_runs_answers_by_its_own_means_is_refused_unless_they_are_trusted(module: str, function: str, place: str) -> None:
    one = task(module, function)
    with pytest.raises(BadInput, match=r"one runs programs that the model wrote; set evaluate\.run_code: true"):
        code_tasks.check("one", one, run_code=False, trust_code=False)
    with pytest.raises(BadInput, match=rf"own means \(.*{place}.*\), which no sandbox confines\. --trust-code"):
        code_tasks.check("one", one, run_code=True, trust_code=False)
    code_tasks.check("one", one, run_code=True, trust_code=True)


def test_a_task_that_says_so_and_has_another_metric_is_refused() -> None:
    with pytest.raises(BadInput, match="its own metric"):
        code_tasks.check("one", task("hendrycks_math.utils", "process_results", UNSAFE_CODE=True), run_code=True, trust_code=False)


@pytest.mark.parametrize(("module", "function"), [("humaneval.utils", "pass_at_k"), ("mbpp.utils", "pass_at_1")])
def test_a_task_that_uses_the_sandbox_is_told_whether_programs_are_trusted(module: str, function: str) -> None:
    one = task(module, function, UNSAFE_CODE=True)
    how = code_tasks.running(one)
    assert how.confined
    assert [type(metric) for metric in how.sandboxed] == [CodeEval]
    how.sandboxed[0].trusted = False
    code_tasks.check("one", one, run_code=True, trust_code=True)
    assert how.sandboxed[0].trusted


@pytest.mark.parametrize(
    ("module", "function"),
    [("longproc.metrics", "process_results_html_to_tsv"), ("hendrycks_math.utils", "process_results"), ("drop.utils", "process_results")],
)
def test_a_task_that_reads_answers_runs_no_code(module: str, function: str) -> None:
    assert not code_tasks.running(task(module, function)).runs


def test_an_object_whose_class_does_not_tell_its_module_is_no_obstacle() -> None:
    odd = type("Odd", (), {"__module__": property(str)})()
    config = SimpleNamespace(process_results=[odd], metric_list=None, filter_list=None)
    one: Any = SimpleNamespace(config=config)
    assert not code_tasks.running(one).runs


def test_lm_evals_command_line_refuses_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def simple_evaluate() -> None:
        lm_eval.evaluator.evaluate(lm=None, task_dict={"tasks": {"one": task(*OUTSIDE[0][:2])}}, confirm_run_unsafe_code=True)

    monkeypatch.setattr(command, "cli_evaluate", simple_evaluate)
    with pytest.raises(SystemExit, match="one runs what the model wrote by its own means"):
        command.main()


def test_a_sandbox_that_breaks_is_told_at_the_first_program() -> None:
    asked = []

    def scored(doc: int) -> dict[str, float]:
        asked.append(doc)
        raise RunFailed("the sandbox failed")

    one: Any = SimpleNamespace(process_results=scored)
    with harness._metric_failures({"one": one}), pytest.raises(RunFailed, match="the sandbox failed"):
        list(map(one.process_results, range(500)))
    assert asked == [0]


def test_a_task_whose_code_ends_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(name: str) -> None:
        raise SystemExit(f"{name} wants another version")

    monkeypatch.setattr(tasks, "_stock", ends)
    with pytest.raises(
        BadInput, match=r"the code of the task lm-eval:sciq ended the program \(SystemExit: sciq wants another version\); mend it"
    ):
        tasks.load("lm-eval:sciq")


def test_an_item_at_which_a_tasks_code_ends_the_process_counts_as_failed() -> None:
    def scored(doc: int) -> dict[str, float]:
        raise SystemExit(doc)

    one: Any = SimpleNamespace(process_results=scored)
    with harness._metric_failures({"one": one}) as failures:
        assert [one.process_results(number) for number in range(2)] == [{}, {}]
    assert [type(error) for error in failures] == [SystemExit, SystemExit]
