"""Evaluation by several processes: the answers of one, from one journal, and one process has the tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluation.conftest import make_model, make_tokenizer
from evaluation.test_branched import ARCHITECTURES as BRANCHED
from evaluation.test_generation import PROMPTS, instances
from evaluation.test_tree_lm import PAIRS
from lm_eval.api.instance import Instance
from models.tiny import THIRD_PARTY_WARNINGS
from pydantic import ValidationError
from runner.test_ranks import deaf

from compresslab.evaluation.engines import batched, choose, generation, journal, plain
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.ranks import this_rank
from compresslab.plan.estimate import estimate
from compresslab.plan.prepare import prepare
from compresslab.recipe.schema import Evaluate
from compresslab.runner.executors.local import LocalExecutor
from compresslab.runner.messages import Progressed
from compresslab.runner.ranks.group import RankFailed, together
from compresslab.runner.ranks.member import Send
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

# Each engine by what makes `choose_engine` take it, in pieces so small that there are many.
ENGINES: dict[str, tuple[str, dict[tuple[Any, str], Any]]] = {
    "tree": ("llama", {(choose, "BATCHED_FROM_SHARE"): 2.0}),
    "batched": ("llama", {(choose, "BATCHED_FROM_SHARE"): 0.0, (batched, "BUDGET_FACTOR"): 0}),
    "branched": ("mamba2", {(choose, "MIN_TOKENS_PER_BRANCH"): 0}),
    "plain": ("mamba", {(plain, "SLICE"): 3}),
    "shared": ("llama", {(generation, "MAX_BATCH"): 2}),
}


def answer(engine: str, folder: Path, stop_at: float, _: int, send: Send) -> None:
    """What each process does: the first one is asked, and counts the forward passes of all."""
    kind, settings = ENGINES[engine]
    for (module, name), value in settings.items():
        setattr(module, name, value)
    model, ranks = make_model(kind, **BRANCHED.get(kind, {})).to(torch.bfloat16), this_rank()
    forward, passes = model.forward, [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes[0] += 1
        return forward(*args, **kwargs)

    def progress(share: float) -> None:
        send(Progressed(share, engine))
        if share > stop_at:
            raise RuntimeError("stopped")

    model.forward = counted
    budget = 512 if engine == "batched" else 16
    lm = TreeLM(model, make_tokenizer(), budget=budget, journals=folder / "journals", ranks=ranks, progress=progress)
    if ranks.rank:
        lm.follow()
        ranks.gathered(passes[0])
        return
    scored = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]) if engine != "shared" else []
    generated = lm.generate_until(instances(PROMPTS)) if engine == "shared" else []
    lm.dismiss()
    assert lm.engine == engine
    (folder / "answers.json").write_text(json.dumps([scored, generated, ranks.gathered(passes[0])]))


def answers(size: int, engine: str, folder: Path, stop_at: float = 2.0) -> tuple[Any, list[int]]:
    """The answers of so many processes, each of one thread, and the number of forward passes of each."""
    folder.mkdir(exist_ok=True)
    together(size, partial(answer, engine, folder, stop_at), deaf, device="cpu", threads=size, log=folder / "log")
    *found, passes = json.loads((folder / "answers.json").read_text())
    return found, passes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [journal.ROUND, 0.0])
def test_processes_answer_as_one_does_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, seconds: float):
    monkeypatch.setattr(journal, "ROUND", seconds)
    monkeypatch.setattr(journal, "PIECES_A_ROUND", 1)
    one, [passes] = answers(1, engine, tmp_path / "one")
    assert one[0] or one[1]
    for size in (2, 3):
        several, parts = answers(size, engine, tmp_path / str(size))
        assert several == one
        assert min(parts) > 0, "each computes a part"
        # A later part of a trie this small has all earlier pieces on its path.
        assert max(parts) < passes or engine == "tree"


@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (2, 3)])
def test_any_number_of_processes_goes_on_from_the_journal_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
):
    monkeypatch.setattr(journal, "ROUND", 0.0)
    monkeypatch.setattr(journal, "PIECES_A_ROUND", 1)
    whole, passes = answers(sizes[1], "batched", tmp_path / "whole")
    with pytest.raises(RankFailed, match="stopped"):
        answers(sizes[0], "batched", tmp_path / "stopped", stop_at=0.4)
    resumed, fewer = answers(sizes[1], "batched", tmp_path / "stopped")
    assert resumed == whole
    assert sum(fewer) < sum(passes)


def test_a_study_evaluated_by_two_processes_has_the_scores_of_one(recipe: Path, tmp_path: Path):
    stated = yaml.safe_load(recipe.read_text())
    scores, peaks = [], []
    for devices in (1, 2):
        recipe.write_text(yaml.safe_dump({**stated, "evaluate": {**stated["evaluate"], "devices": devices}}))
        plan, store = prepare(recipe), Store(tmp_path / f"store-{devices}")
        evaluating = [node for node in plan.nodes if node.kind == "evaluate"]
        assert {node.devices for node in evaluating} == {devices}
        # So that each process has one thread.
        assert not run(plan, store, Watcher(), LocalExecutor(plan, store, 1, threads=devices)).failures
        keys = sorted(key for node in evaluating for key in node.tasks.values())
        scores.append({key: (store.folder(key) / "record.json").read_text() for key in keys})
        costs = [json.loads((store.folder(key) / "cost.json").read_text()) for key in keys]
        assert {cost["devices"] for cost in costs} == {devices}
        peaks.append(max(cost["peak_memory_bytes"] for cost in costs))
    assert peaks[1] > 1.5 * peaks[0], "of both processes"
    assert scores[0] == scores[1], "the keys, too"
    assert scores[0]


def test_processes_divide_time_and_not_memory(recipe: Path):
    stated = yaml.safe_load(recipe.read_text())

    def needed(devices: int) -> Callable[[], float]:
        recipe.write_text(yaml.safe_dump({**stated, "evaluate": {**stated["evaluate"], "devices": devices}}))
        plan = prepare(recipe)
        return next(estimate(node, plan).memory or 0.0 for node in plan.nodes if node.kind == "evaluate")

    assert needed(3) == 3 * needed(1)


@pytest.mark.parametrize("settings", [{"backend": "vllm", "tasks": ["arc_easy"]}, {"source": "published", "table": "llama-3.2"}])
def test_devices_where_they_do_nothing_are_refused(settings: dict[str, Any]):
    with pytest.raises(ValidationError, match=r"devices: .*; leave it out"):
        Evaluate(**settings, devices=2)
