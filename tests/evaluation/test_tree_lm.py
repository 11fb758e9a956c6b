from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.errors import RunFailed
from compresslab.evaluation.engines import choose
from compresslab.evaluation.tree_lm import TreeLM

from .conftest import LINES, make_tokenizer

FEW_SHOT = LINES[0] + "\n\n" + LINES[1] + "\n\n"
PAIRS = [
    # a shared few-shot block, then a question, then options of unequal length, one of them the beginning of another
    (FEW_SHOT + "Question: Which fox sleeps?\nAnswer:", " the fox"),
    (FEW_SHOT + "Question: Which fox sleeps?\nAnswer:", " the fox jumps"),
    (FEW_SHOT + "Question: Which fox sleeps?\nAnswer:", " the fox jumps over the dog"),
    (FEW_SHOT + "Question: Which fox sleeps?\nAnswer:", " dog"),
    (FEW_SHOT + "Question: What is warm?\nAnswer:", " sun"),
    (FEW_SHOT + "Question: What is warm?\nAnswer:", " water"),
    # ragged: a context that is itself the beginning of the ones above
    (FEW_SHOT, "Question:"),
    (FEW_SHOT[:40], FEW_SHOT[40:60]),
    # nothing shared; requested twice; one token; no context at all; spaces at the end of the context; beyond ASCII
    ("xyz", "!"),
    ("xyz", "!"),
    ("", "The quick brown fox"),
    ("The quick ", "brown fox"),
    ("Ärger über 北京", " été ☃"),
    # the tokenizer merges across this boundary
    ("The quick bro", "wn fox"),
    # one sequence split in two ways
    ("The quick brown fox", " jumps"),
    ("The quick brown", " fox jumps"),
]


def plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> HFLM:
    """lm-eval's own model. Its cache of logits is off: where one sequence is split in two ways, it scores the wrong rows."""
    return HFLM(model, tokenizer=tokenizer, batch_size=4, logits_cache=False)


def answers(lm: HFLM, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    got: list[tuple[float, bool]] = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
    return got


def same(left: list[tuple[float, bool]], right: list[tuple[float, bool]], tolerance: float = 1e-4) -> bool:
    return all(abs(a - b) <= tolerance and x == y for (a, x), (b, y) in zip(left, right, strict=True))


ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    ("llama", {"attn_implementation": "eager"}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 400}),
    ("mistral", {"sliding_window": 20}),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 1}),
    ("mixtral", {"num_local_experts": 4, "sliding_window": None}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 16}),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}),
    ("smollm3", {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}),
    ("olmo2", {}),
    ("gpt_neox", {}),
    ("gemma", {"head_dim": 16}),
    ("gemma2", {"head_dim": 16, "final_logit_softcapping": 3.0, "sliding_window": 400}),
    ("gemma2", {"head_dim": 16, "attn_implementation": "eager", "sliding_window": 20}),
    ("gemma3_text", {"head_dim": 16, "sliding_window": 400}),
    ("gemma3_text", {"head_dim": 16, "sliding_window": 20}),
    *((kind, {}) for kind in ("cohere", "gpt2", "granite", "opt", "phi")),
    *((kind, {"sliding_window": window}) for kind in ("cohere2", "exaone4", "olmo3", "starcoder2") for window in (400, 20)),
    *(("phi3", {"pad_token_id": 0, "sliding_window": window}) for window in (None, 20)),
    ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}),
    *(("gpt_oss", {"num_local_experts": 4, "head_dim": 16, "sliding_window": window}) for window in (400, 20)),
]


@pytest.mark.parametrize(("kind", "settings"), ARCHITECTURES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(ARCHITECTURES)])
def test_the_tree_and_the_batches_give_what_lm_eval_gives(
    kind: str,
    settings: dict[str, Any],
    build: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build(kind, **settings)
    expected = answers(plain(model, tokenizer), PAIRS)
    for engine, budget in (("tree", 7), ("tree", 512), ("batched", 512)):
        monkeypatch.setattr(choose, "BATCHED_FROM_SHARE", 2.0 if engine == "tree" else 0.0)
        lm = TreeLM(model, tokenizer, budget=budget)
        got = answers(lm, PAIRS)
        assert lm.engine == engine
        assert same(got, expected)


def test_a_sequence_that_asks_for_more_logits_than_may_be_held_stays_on_the_tree(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = TreeLM(llama, tokenizer, budget=16)
    text = Instance("loglikelihood_rolling", {}, ("The quick brown fox jumps over the lazy dog, and what is warm in the sun?",), 0)
    lm.loglikelihood_rolling([text])
    assert lm.engine == "tree"


def test_prompts_that_share_nothing_go_in_batches_and_others_as_a_tree(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = TreeLM(llama, tokenizer)
    strangers = [(f"{letter} {word * 8}", " fox") for letter, word in zip("ABCDE", ("brown", "dog", "xyz", "sun", "what"), strict=True)]
    lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in strangers])
    assert lm.engine == "batched"
    lm.loglikelihood([Instance("loglikelihood", {}, (strangers[0][0], tail), 0) for tail in (" fox", " dog", " sun")])
    assert lm.engine == "tree"


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("mamba", {}, "architecture mamba"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "depends on the length"),
    ],
)
def test_where_a_tree_mask_is_not_exact_lm_eval_does_it_itself(
    kind: str, settings: dict[str, Any], why: str, build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(kind, **settings)
    lm = TreeLM(model, tokenizer)
    got = answers(lm, PAIRS)
    assert lm.engine == "plain"
    assert why in lm.why
    assert same(got, answers(plain(model, tokenizer), PAIRS), tolerance=1e-3)


@pytest.mark.parametrize("bos", [False, True])
def test_strings_are_split_into_tokens_as_lm_eval_splits_them(bos: bool, llama: PreTrainedModel) -> None:
    tokenizer = make_tokenizer(bos=bos)
    lm = TreeLM(llama, tokenizer)
    assert lm.bos is bos
    pairs = [*PAIRS, ("<s>The quick", " brown")]
    for pair, head, tail in lm.encode(pairs):
        assert pair is not None
        if pair[0]:
            assert (list(head), list(tail)) == lm._encode_pair(*pair)


def test_a_tokenizer_that_puts_a_beginning_of_sequence_token_first_gives_what_lm_eval_gives(llama: PreTrainedModel) -> None:
    tokenizer = make_tokenizer(bos=True)
    assert same(answers(TreeLM(llama, tokenizer), PAIRS), answers(plain(llama, tokenizer), PAIRS))


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_the_order_of_the_requests_changes_nothing(
    kind: str, build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(kind)
    order = list(range(len(PAIRS)))
    random.Random(3).shuffle(order)
    straight = answers(TreeLM(model, tokenizer), PAIRS)
    shuffled = answers(TreeLM(model, tokenizer), [PAIRS[i] for i in order])
    assert [straight[i] for i in order] == shuffled


def test_a_prompt_longer_than_the_context_is_cut_from_the_left_and_counted(
    build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(max_position_embeddings=48)
    lm = TreeLM(model, tokenizer)
    assert same(answers(lm, PAIRS), answers(plain(model, tokenizer), PAIRS))
    assert lm.truncated == {pair for pair in PAIRS if pair[0].startswith(FEW_SHOT)}


def test_a_long_text_is_scored_window_by_window(build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(max_position_embeddings=32)
    requests = [Instance("loglikelihood_rolling", {}, (" ".join(LINES),), 0)]
    got = TreeLM(model, tokenizer).loglikelihood_rolling(requests, disable_tqdm=True)
    wanted = plain(model, tokenizer).loglikelihood_rolling(requests, disable_tqdm=True)
    assert got == pytest.approx(wanted, abs=1e-3)


def test_a_continuation_without_a_token_is_named(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(RunFailed, match=r"1 of 2 continuations have no token of their own; the first is ''"):
        answers(TreeLM(llama, tokenizer), [("The quick", ""), ("The quick", " fox")])


def test_progress_ends_at_the_whole(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    shares: list[float] = []
    answers(TreeLM(llama, tokenizer, budget=16, progress=shares.append), PAIRS)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 3


def test_bf16_stays_within_its_own_noise(build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    model = build().to(torch.bfloat16)
    got, wanted = answers(TreeLM(model, tokenizer), PAIRS), answers(plain(model, tokenizer), PAIRS)
    assert [value for value, _ in got] == pytest.approx([value for value, _ in wanted], rel=0.03, abs=0.3)
