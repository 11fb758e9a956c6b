"""lm-eval's command line with the model `compresslab`: `python -m compresslab.evaluation --model compresslab --model_args pretrained=…`."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import lm_eval.evaluator
from lm_eval.__main__ import cli_evaluate

from compresslab.errors import CompresslabError
from compresslab.evaluation import (
    code_tasks,
    registered,  # noqa: F401, importing it puts the model into lm-eval's registry
)
from compresslab.evaluation.sandbox.code_eval import own_code_eval

EVALUATE = lm_eval.evaluator.evaluate


def main() -> None:
    """Run lm-eval's command line. Programs that a model wrote run in the sandbox, with --confirm_run_unsafe_code only."""
    try:
        with own_code_eval(), mock.patch.object(lm_eval.evaluator, "evaluate", checked):
            cli_evaluate()
    except CompresslabError as error:
        sys.exit(f"Error: {error}")


def checked(lm: Any, task_dict: dict[str, Any], *args: Any, confirm_run_unsafe_code: bool = False, **settings: Any) -> Any:
    """lm-eval's `evaluate` for tasks that run no program outside of the sandbox.

    Raises:
        BadInput: one of them would.
    """
    for name, task in task_dict["tasks"].items():
        code_tasks.check(name, task, run_code=confirm_run_unsafe_code, trust_code=False)
    return EVALUATE(lm, task_dict, *args, confirm_run_unsafe_code=confirm_run_unsafe_code, **settings)


if __name__ == "__main__":
    main()
