"""`VllmLM` with lm-eval's `hf` in place of vLLM, which needs a GPU: refused, counted and forwarded requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.errors import RunFailed
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.evaluation.vllm_lm import VllmLM

PAIRS = [("The quick brown", " fox"), ("The quick brown", " dog sleeps")]


def instances(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, 0) for pair in pairs]


def test_answers_are_those_of_the_model_behind_it(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = VllmLM(HFLM(llama, tokenizer=tokenizer, batch_size=1), truncate=False)
    shares: list[float] = []
    lm.progress = shares.append
    for (got, greedy), (wanted, also) in zip(
        lm.loglikelihood(instances(PAIRS)), TreeLM(llama, tokenizer).loglikelihood(instances(PAIRS)), strict=True
    ):
        assert (got, greedy) == (pytest.approx(wanted, abs=1e-4), also)
    assert (lm.engine, lm.bos, shares) == ("vllm", False, [1.0])
    assert lm.lengths[PAIRS[0]] == len(tokenizer(" fox")["input_ids"])
    request = Instance("generate_until", {}, ("The quick", {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}), 0)
    assert lm.generate_until([request]) == TreeLM(llama, tokenizer).generate_until([request])


def test_what_does_not_fit_is_refused_or_counted(build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    inner = HFLM(build(max_position_embeddings=16), tokenizer=tokenizer, batch_size=1)
    pairs = [("The quick brown " * 4, " fox"), ("The", " fox")]
    with pytest.raises(RunFailed, match="1 requests do not fit the model's context of 15 tokens"):
        VllmLM(inner, truncate=False).loglikelihood(instances(pairs))
    lm = VllmLM(inner, truncate=True)
    lm.loglikelihood(instances(pairs))
    assert lm.truncated == {pairs[0]}
    with pytest.raises(RunFailed, match="asks for up to 16 new tokens"):
        lm.generate_until([Instance("generate_until", {}, ("The", {"until": [], "max_gen_toks": 16}), 0)])
