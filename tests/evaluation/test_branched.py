"""For models without an exact tree mask, branches that continue from copies of the cache give the results of lm-eval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.evaluation.engines import choose, exactness
from compresslab.evaluation.engines.branched import branches
from compresslab.evaluation.engines.trie import build as trie_of
from compresslab.evaluation.tree_lm import TreeLM

from . import test_tree_lm
from .test_journal import scored, stopping
from .test_tree_lm import PAIRS, answers, plain, same

MAMBA = {"mamba_n_heads": 6, "mamba_d_head": 16, "mamba_d_state": 8}
DELTA = {
    **{"layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 16},
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "falcon": {},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 2, "shared_intermediate_size": 32, **MAMBA},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 6, "head_dim": 16, "n_groups": 2, "state_size": 8, "expand": 2},
    "olmo_hybrid": {**DELTA, "pad_token_id": 0},
    "qwen3_5_text": DELTA,
    "qwen3_next": {**EXPERTS, **DELTA},
}


@pytest.fixture(autouse=True)
def _also_for_short_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "MIN_TOKENS_PER_BRANCH", 2)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_branches_give_what_lm_eval_gives(kind: str, build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(kind, **ARCHITECTURES[kind])
    expected = answers(plain(model, tokenizer), PAIRS)
    for budget in (7, 512):
        lm = TreeLM(model, tokenizer, budget=budget)
        got = answers(lm, PAIRS)
        assert lm.engine == "branched"
        assert same(got, expected)


def test_no_architecture_is_trusted_untested() -> None:
    assert {kind for kind, _ in test_tree_lm.ARCHITECTURES} == exactness.TREE_MASK_ARCHITECTURES
    assert set(ARCHITECTURES) == exactness.CACHE_COPY_ARCHITECTURES


def test_where_branches_are_many_and_short_lm_eval_answers_in_its_own_way(
    build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "MIN_TOKENS_PER_BRANCH", 150)
    lm = TreeLM(build("mamba2", **ARCHITECTURES["mamba2"]), tokenizer)
    answers(lm, PAIRS)
    assert lm.engine == "plain"


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.3, 0.7, 0.9])
def test_answers_after_a_stop_are_the_same_bit_for_bit(
    tmp_path: Path,
    after: float,
    build: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("mamba2", **ARCHITECTURES["mamba2"]).to(torch.bfloat16)
    forward, passes = model.forward, []
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: (passes.append(1), forward(*args, **kwargs))[1])
    undisturbed = TreeLM(model, tokenizer, budget=16).loglikelihood(scored())
    whole = len(passes)
    with pytest.raises(KeyboardInterrupt):
        TreeLM(model, tokenizer, budget=16, journals=tmp_path, progress=stopping(after)).loglikelihood(scored())
    passes.clear()
    again = TreeLM(model, tokenizer, budget=16, journals=tmp_path)
    assert again.loglikelihood(scored()) == undisturbed
    assert again.engine == "branched"
    assert len(passes) < whole or after == 0.0  # the first branch is computed again, since all others continue from it


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9), st.integers(1, 5))
def test_branches_have_each_node_once_and_fork_only_at_their_ends(sequences: list[list[int]], budget: int) -> None:
    trie = trie_of(sequences, [[0]] * len(sequences))
    cut = list(branches(trie, budget))
    assert [node for branch in cut for node in range(*branch)] == list(range(len(trie.tokens)))
    ends = {branch.stop - 1 for branch in cut} | {-1}
    for branch in cut:
        assert 1 <= branch.stop - branch.start <= budget
        assert int(trie.parent[branch.start]) in ends
        assert (trie.parent[branch.start + 1 : branch.stop] == np.arange(branch.start, branch.stop - 1)).all()
