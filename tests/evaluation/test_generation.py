from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.errors import RunFailed
from compresslab.evaluation.engines import generation
from compresslab.evaluation.engines.generation import common_prefix, prompt_batches
from compresslab.evaluation.engines.work import Prompt
from compresslab.evaluation.scores import pair
from compresslab.evaluation.tree_lm import TreeLM

from .conftest import LINES
from .test_tree_lm import ARCHITECTURES, FEW_SHOT

PROMPTS = [
    FEW_SHOT + "Question: Which fox sleeps?\nAnswer:",
    FEW_SHOT + "Question: What is warm in the sun, and which of the dogs sleeps there?\nAnswer:",
    FEW_SHOT + "Question: What?\nAnswer:",
    "xyz",
    "The quick brown fox",
    FEW_SHOT + "Question: What?\nAnswer:",
]


def instances(prompts: list[str], **settings: Any) -> list[Instance]:
    given = {"until": ["\n\n", "fox"], "max_gen_toks": 24, "do_sample": False, **settings}
    return [Instance("generate_until", {}, (prompt, given), 0) for prompt in prompts]


def plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, requests: list[Instance]) -> list[str]:
    """One by one, without padding."""
    answers: list[str] = HFLM(model, tokenizer=tokenizer, batch_size=1).generate_until(requests, disable_tqdm=True)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), ARCHITECTURES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(ARCHITECTURES)])
def test_what_is_generated_is_what_lm_eval_generates(
    kind: str,
    settings: dict[str, Any],
    build: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
):
    """With a shared prefix (batches of one without one) and in batches, in short and in long forwards."""
    model = build(kind, **settings)
    before = model.config._attn_implementation
    expected = plain(model, tokenizer, instances(PROMPTS))
    # Tokens at different positions after a shared prefix see different parts of it through a window.
    outgrown = settings.get("sliding_window") == 20
    for min_batch, budget in ((1, 7), (8, 512)) if outgrown else ((1, 7), (1, 512), (8, 7), (8, 512)):
        monkeypatch.setattr(generation, "MIN_BATCH", min_batch)
        lm = TreeLM(model, tokenizer, budget=budget)
        assert lm.generate_until(instances(PROMPTS)) == expected
        assert lm.engine == ("plain" if outgrown else "shared")
        assert ("outgrows its attention window of 20" in lm.why) is outgrown
        assert model.config._attn_implementation == before


def test_answers_end_at_their_own_stop_strings_and_lengths(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    whole = TreeLM(llama, tokenizer).generate_until(instances(PROMPTS, until=[]))
    stop = whole[0][3:6]
    requests = [
        *instances(PROMPTS[:1], until=[stop]),
        *instances(PROMPTS[1:3], max_gen_toks=5),
        *instances(PROMPTS[3:], until=["\n"], max_gen_toks=40),
    ]
    answers = TreeLM(llama, tokenizer).generate_until(requests)
    assert answers == plain(llama, tokenizer, requests)
    assert answers[0] == whole[0].split(stop)[0]
    assert whole[1].startswith(answers[1])


@pytest.mark.parametrize("backend", ["tree", "hf"])
def test_how_an_answer_ended_is_noted_by_both_engines(backend: str, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    """By its limit of tokens, by a stop sequence before it, and by one that its last token completes. Batches of prompts of any length."""
    whole = TreeLM(llama, tokenizer).generate_until(instances(PROMPTS, until=[]))
    stop = whole[0][3:6]
    requests = [*instances(PROMPTS[:1], until=[stop]), *instances(PROMPTS[1:3], max_gen_toks=5), *instances(PROMPTS[3:5])]
    lm = TreeLM(llama, tokenizer, backend=backend)
    lm.generate_until(requests)
    assert lm.engine == {"tree": "shared", "hf": "plain"}[backend]
    pairs = [pair(request.args) for request in requests]
    stopped, limits = lm.lengths[pairs[0]], [24, 5, 5, 24, 24]
    assert stopped < 24
    assert not lm.cut[pairs[0]]
    for one, limit in zip(pairs, limits, strict=True):
        assert lm.cut[one] == (lm.lengths[one] == limit)
    assert [lm.cut[one] for one in pairs[1:3]] == [True, True]
    [at_the_limit] = instances(PROMPTS[:1], until=[stop], max_gen_toks=stopped)
    lm.generate_until([at_the_limit])
    assert (lm.lengths[pair(at_the_limit.args)], lm.cut[pair(at_the_limit.args)]) == (stopped, False)


def test_both_engines_count_the_same_tokens(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    found = []
    for backend in ("tree", "hf"):
        lm = TreeLM(llama, tokenizer, backend=backend)
        lm.generate_until(instances(PROMPTS))
        found.append((lm.lengths, lm.cut))
    assert found[0] == found[1]
    assert found[0][0]


def test_equal_requests_that_are_drawn_have_no_known_end(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    lm = TreeLM(llama, tokenizer)
    requests = instances([PROMPTS[3]] * 4, do_sample=True, temperature=5.0)
    assert len(set(lm.generate_until(requests))) > 1
    assert (lm.engine, lm.lengths, lm.cut) == ("plain", {}, {})


def test_what_is_not_greedy_goes_lm_evals_own_way(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    lm = TreeLM(llama, tokenizer)
    lm.generate_until(instances(PROMPTS[3:4], do_sample=True, temperature=0.7))
    assert lm.engine == "plain"
    assert "random draws" in lm.why


def test_a_prompt_that_leaves_no_room_for_the_answer_is_cut_and_marked(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    long = LINES[2] * 40
    lm = TreeLM(llama, tokenizer)
    requests = instances([long, PROMPTS[0]])
    assert lm.generate_until(requests) == plain(llama, tokenizer, requests)
    assert {prompt for prompt, _ in lm.truncated} == {long}
    with pytest.raises(RunFailed, match="leaves no room for a prompt in 512"):
        lm.generate_until(instances(PROMPTS, max_gen_toks=512))


def test_all_prompts_that_do_not_fit_are_counted_in_the_refusal(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    lm = TreeLM(llama, tokenizer, truncate=False)
    with pytest.raises(RunFailed, match=r"^2 requests do not fit the model's context of 512 tokens"):
        lm.generate_until(instances([LINES[2] * 40, PROMPTS[0], LINES[1] * 40]))


def test_batches_hold_prompts_that_begin_alike(monkeypatch: pytest.MonkeyPatch):
    def prompt(ids: list[int], most: int = 4) -> Prompt:
        return Prompt(ids, most, lambda _: False, [])

    first, second = [list(range(start, start + 20)) for start in (100, 200)]
    prompts = [prompt([*shared, number]) for number in range(3) for shared in (second, first)]
    # so few prompts are one batch, whatever they share
    assert sorted(map(sorted, prompt_batches(prompts, 1))) == [[0, 1, 2, 3, 4, 5]]
    monkeypatch.setattr(generation, "MIN_BATCH", 2)
    assert sorted(map(sorted, prompt_batches(prompts, 1))) == [[0, 2, 4], [1, 3, 5]]
    monkeypatch.setattr(generation, "MAX_BATCH", 2)
    assert sorted(map(len, prompt_batches(prompts, 1))) == [2, 2, 2]
    monkeypatch.setattr(generation, "MIN_BATCH", 1)
    assert sorted(map(len, prompt_batches(prompts, 1))) == [1, 1, 2, 2]
    monkeypatch.setattr(generation, "MAX_CACHE_BYTES", 5)
    assert [len(batch) for batch in prompt_batches(prompts, 1)] == [1] * 6
    assert common_prefix([1, 2, 3], [1, 2, 3]) == 2
    assert common_prefix([1, 2], [3]) == 0
