"""The metric of lm-eval's tasks that run programs: pass@k, by programs in the sandbox."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from compresslab.errors import BadInput
from compresslab.evaluation.sandbox.programs import passes


class CodeEval:
    """A replacement of the hub's `code_eval` metric for lm-eval's tasks.

    Attributes:
        trusted: without a sandbox.
        refused: why it runs no program at all, empty if it may. The code of some tasks runs one when it is imported.
    """

    def __init__(self, trusted: bool = False, refused: str = "") -> None:
        self.trusted, self.refused = trusted, refused

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], Any]:
        """pass@k over problems. `references` are tests, `predictions` the programs for each problem.

        Source of the unbiased estimate: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374.

        Raises:
            BadInput: it may run none.
        """
        if self.refused:
            raise BadInput(self.refused)
        results = [
            [passes(f"{program}\n{test}", trusted=self.trusted) for program in programs]
            for test, programs in zip(references, predictions, strict=True)
        ]
        return {f"pass@{number}": sum(pass_at_k(found, number) for found in results) / len(results) for number in k}, results


def pass_at_k(passed: Sequence[bool], k: int) -> float:
    """The probability that at least one of k programs, drawn from the tried ones, passes."""
    return 1 - math.comb(len(passed) - sum(passed), k) / math.comb(len(passed), k)


@contextlib.contextmanager
def own_code_eval(trusted: bool = False, refused: str = "") -> Iterator[None]:
    """A context in which `CodeEval` replaces the hub's `code_eval`, which would run programs with a network."""
    import evaluate

    load = evaluate.load

    def ours(path: str, *args: Any, **settings: Any) -> Any:
        return CodeEval(trusted, refused) if path == "code_eval" else load(path, *args, **settings)

    with mock.patch.object(evaluate, "load", ours):
        yield
