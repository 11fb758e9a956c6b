"""The chosen engine and the reason, from the config, the work, the budget and the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.evaluation.engines import batched, branched, choose, generation, tree
from compresslab.evaluation.engines.choose import Candidate, choose_engine, tokens_per_forward
from compresslab.evaluation.engines.work import GenerationWork, LogLikelihoodRequest, LogLikelihoodWork, Prompt
from compresslab.evaluation.tree_lm import TreeLM

BLOCK = list(range(40))
SHARED = LogLikelihoodWork([LogLikelihoodRequest([*BLOCK, 100 + question], [200 + option]) for question in range(3) for option in range(4)])
STRANGERS = LogLikelihoodWork([LogLikelihoodRequest([number, *BLOCK], [7, 8]) for number in range(100, 105)])
# Three branches behind a block of 160 tokens, and 12 sequences of 161 tokens: 1,932 tokens without the trie, 163 with it.
LONG = LogLikelihoodWork([LogLikelihoodRequest([*BLOCK * 4, 100 + number % 3], [200 + number]) for number in range(12)])


def prompts(**settings: object) -> GenerationWork:
    return GenerationWork([Prompt(BLOCK, 10, lambda _: False, [], {}), Prompt(BLOCK, 10, lambda _: False, [], settings)])


@pytest.mark.parametrize(
    ("kind", "settings", "work", "budget", "name", "engine", "why"),
    [
        ("llama", {}, SHARED, 512, "tree", tree.log_likelihoods, "share prefixes; not batched: only 43 of 492 tokens are left"),
        ("llama", {}, STRANGERS, 512, "batched", batched.log_likelihoods, "nearly nothing"),
        ("llama", {}, STRANGERS, 41, "tree", tree.log_likelihoods, "a sequence of 42 tokens are more than those of 41 tokens"),
        ("mamba2", {}, LONG, 512, "branched", branched.log_likelihoods, "not batched or tree: no test shows that a tree mask is exact"),
        ("mamba2", {}, SHARED, 512, "plain", None, "4 branches of 492 tokens are too short to be faster"),
        ("mamba", {}, LONG, 512, "plain", None, "not branched: no test shows that continuing from a copied cache is exact"),
        ("llama", {}, prompts(do_sample=False), 512, "shared", generation.generate, "greedy decoding"),
        ("llama", {}, prompts(temperature=0.7), 512, "plain", None, "not shared: a task asks for random draws"),
        ("llama", {}, prompts(top_k=3, num_beams=2), 512, "plain", None, "a task asks for generation with num_beams, top_k"),
        ("mistral", {"sliding_window": 49}, prompts(), 512, "plain", None, "a sequence of 50 tokens outgrows its attention window of 49"),
        ("mistral", {"sliding_window": 50}, prompts(), 512, "shared", generation.generate, "greedy decoding"),
        ("mamba2", {}, prompts(), 512, "plain", None, "architecture mamba2"),
    ],
)
def test_the_first_engine_that_is_exact_and_fast_answers(
    kind: str, settings: dict[str, Any], work: Any, budget: int, name: str, engine: object, why: str, build: Callable[..., PreTrainedModel]
) -> None:
    if kind == "mamba2":
        settings = {"num_heads": 6, "head_dim": 16, "n_groups": 2, "state_size": 8, "expand": 2}
    choice = choose_engine(build(kind, **settings), work, budget)
    assert (choice.name, choice.engine) == (name, engine)
    assert why in choice.why


@pytest.mark.parametrize(("name", "value"), [("repetition_penalty", 1.3), ("no_repeat_ngram_size", 2), ("suppress_tokens", [3])])
def test_a_generation_config_that_changes_logits_is_obeyed(
    name: str, value: object, build: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama")
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 1.0)
    assert choose_engine(model, prompts(), 512).name == "shared"
    monkeypatch.setattr(model.generation_config, name, value)
    choice = choose_engine(model, prompts(), 512)
    assert (choice.name, choice.why) == ("plain", f"not shared: the model's generation_config has {name}")


@pytest.mark.parametrize("work", [SHARED, prompts()])
def test_the_recipes_backend_hf_is_lm_evals_own_way(work: Any, llama: PreTrainedModel) -> None:
    assert choose_engine(llama, work, 512, "hf") == ("plain", "the recipe asks for lm-eval's hf", None)


def test_on_a_gpu_no_branch_is_read_by_itself(build: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("falcon")
    assert choose_engine(model, LONG, 512).name == "branched"
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    choice = choose_engine(model, LONG, 512)
    assert choice.name == "plain"
    assert "on cuda one short forward pass takes as long as a batch of long ones" in choice.why


def test_a_new_engine_is_one_line_in_the_table(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Candidate("new", lambda _model, work, *_: [(-1.0, True) for _ in work.requests], "a test", lambda *_: "")
    monkeypatch.setattr(choose, "LOG_LIKELIHOODS", (new, *choose.LOG_LIKELIHOODS))
    lm = TreeLM(llama, tokenizer)
    assert lm.loglikelihood([Instance("loglikelihood", {}, ("The quick", " fox"), 0)]) == [(-1.0, True)]
    assert (lm.engine, lm.why) == ("new", "a test")


def test_a_forward_pass_has_no_more_logits_than_memory_is_meant_for(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokens_per_forward(llama) == 1024
    assert tokens_per_forward(llama, 16) == 16
    monkeypatch.setattr(choose, "MAX_LOGITS", 336 * 100)
    assert tokens_per_forward(llama) == 100
    monkeypatch.setattr(choose, "MAX_LOGITS", 1)
    assert tokens_per_forward(llama) == 1
