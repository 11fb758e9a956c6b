"""Stock tasks on their real data, if there is a copy next to the repository; else skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.errors import BadInput
from compresslab.evaluation import tasks
from compresslab.evaluation.harness import evaluate_model
from compresslab.evaluation.sandbox import code_eval, programs
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.recipe.schema import Evaluate

pytestmark = pytest.mark.slow
HUB = Path(__file__).parents[3] / "shared" / "data" / "hub"


@pytest.fixture(autouse=True)
def sets_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HUB.is_dir():
        pytest.skip("no copy of the evaluation sets lies beside the repository")
    monkeypatch.chdir(HUB)


sandboxed = pytest.mark.skipif(bool(programs.refusal()), reason=f"no sandbox here: {programs.refusal()}")


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_no_program_runs_unless_the_recipe_allows_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_eval, "passes", lambda *_, **__: pytest.fail("a program ran"))
    with pytest.raises(BadInput, match=rf"{name} runs programs that the model wrote; set evaluate\.run_code: true"):
        tasks.load(name)


@sandboxed
@pytest.mark.parametrize(("name", "metric"), [("humaneval", "pass@1"), ("mbpp", "pass_at_1")])
def test_programs_are_written_and_run_where_the_recipe_allows_it(
    name: str, metric: str, build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = TreeLM(build(max_position_embeddings=4096), tokenizer)
    config = Evaluate.model_validate({"tasks": [name], "items": 2, "run_code": True})
    [(score, items)] = evaluate_model(lm, [name], config)
    assert (score.metric.split(",")[0], score.engine, score.accuracy) == (metric, "shared", 0.0)  # a random model writes no program
    assert items.details is not None
    assert all(detail.generated for detail in items.details)


@sandboxed
def test_a_right_program_passes(monkeypatch: pytest.MonkeyPatch, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    solutions = {task.doc["prompt"]: task.doc["canonical_solution"] for task in _instances("humaneval", 3)}

    def solved(_lm: TreeLM, requests: list, disable_tqdm: bool = False) -> list[str]:  # type: ignore[type-arg]  # noqa: ARG001
        return [solutions[request.args[0]] if request.doc_id != 1 else "    return None\n" for request in requests]

    monkeypatch.setattr(TreeLM, "generate_until", solved)
    config = Evaluate.model_validate({"tasks": ["humaneval"], "items": 3, "run_code": True})
    [(_, items)] = evaluate_model(TreeLM(llama, tokenizer), ["humaneval"], config)
    assert items.correct == [1.0, 0.0, 1.0]


def test_the_metric_of_trusted_programs_says_so(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TreeLM, "generate_until", lambda _lm, requests, **_: ["    return None\n" for _ in requests])
    config = Evaluate.model_validate({"tasks": ["humaneval"], "items": 1, "run_code": True})
    [(score, _)] = evaluate_model(TreeLM(llama, tokenizer), ["humaneval"], config, trust_code=True)
    assert score.metric.endswith(" (programs ran without a sandbox)")


def _instances(name: str, items: int) -> list:  # type: ignore[type-arg]
    (task,) = tasks.load(name, run_code=True).values()
    task.build_all_requests(limit=items)
    found: list = task.instances  # type: ignore[type-arg]
    return found


def test_a_group_is_the_union_of_its_leaves(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    config = Evaluate.model_validate({"tasks": ["mmlu_stem"], "items": 1})
    [(score, items)] = evaluate_model(TreeLM(llama, tokenizer), ["mmlu_stem"], config)
    assert score.items == len({name.split("/")[0] for name in items.item}) > 10
