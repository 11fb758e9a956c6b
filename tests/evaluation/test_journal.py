"""Stopped evaluations resume and have the same results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.tree_lm import TreeLM

from .test_generation import PROMPTS, instances
from .test_tree_lm import PAIRS


def scored() -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]


def stopping(after: float) -> Callable[[float], None]:
    def progress(share: float) -> None:
        if share > after:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(("after", "nothing_shared"), [(0.0, 2), (0.3, 2), (0.6, 2), (0.9, 2), (0.0, 0), (0.5, 0)])
def test_log_likelihoods_after_a_stop_are_the_same_bit_for_bit(
    tmp_path: Path,
    after: float,
    nothing_shared: float,
    build: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("compresslab.evaluation.engines.choose.BATCHED_FROM_SHARE", nothing_shared)
    monkeypatch.setattr("compresslab.evaluation.engines.batched.BUDGET_FACTOR", 0)  # a sequence a batch
    budget = 512 if nothing_shared == 0 else 16
    model = build("llama").to(torch.bfloat16)
    undisturbed = TreeLM(model, tokenizer, budget=budget).loglikelihood(scored())
    stopped = TreeLM(model, tokenizer, budget=budget, journals=tmp_path, progress=stopping(after))
    with pytest.raises(KeyboardInterrupt):
        stopped.loglikelihood(scored())
    done: list[float] = []
    again = TreeLM(model, tokenizer, budget=budget, journals=tmp_path, progress=done.append)
    assert again.loglikelihood(scored()) == undisturbed
    assert TreeLM(model, tokenizer, budget=budget, journals=tmp_path).loglikelihood(scored()) == undisturbed


def test_generation_after_a_stop_answers_only_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
):
    monkeypatch.setattr("compresslab.evaluation.engines.generation.MAX_BATCH", 2)
    undisturbed = TreeLM(llama, tokenizer).generate_until(instances(PROMPTS))
    with pytest.raises(KeyboardInterrupt):
        TreeLM(llama, tokenizer, journals=tmp_path, progress=stopping(0.4)).generate_until(instances(PROMPTS))
    again = TreeLM(llama, tokenizer, journals=tmp_path)
    forward, calls = llama.forward, []
    monkeypatch.setattr(llama, "forward", lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1])
    assert again.generate_until(instances(PROMPTS)) == undisturbed
    left = len(calls)
    TreeLM(llama, tokenizer).generate_until(instances(PROMPTS))
    assert 0 < left < len(calls) - left


def test_a_line_that_was_cut_off_is_done_again(tmp_path: Path):
    journal = Journal(tmp_path, [b"work"])
    journal.add(0, [1.5, "é"])
    journal.add(1, [2.5])
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-3])
    again = Journal(tmp_path, [b"work"])
    assert again.answers == {0: [1.5, "é"]}
    again.add(1, [3])
    assert Journal(tmp_path, [b"work"]).answers == {0: [1.5, "é"], 1: [3]}
    assert Journal(tmp_path, [b"other", b"work"]).answers == {}
    assert Journal(None, [b"work"]).answers == {}


def test_two_processes_that_write_one_journal_do_not_mix_answers(tmp_path: Path):
    first, second = Journal(tmp_path, [b"work"]), Journal(tmp_path, [b"work"])
    for number in range(3):  # pieces that are equally long, so that a mixed answer would not be noticed by its length
        first.add(number, [number])
        second.add(number, [number])
    second.add(3, [3])
    assert Journal(tmp_path, [b"work"]).answers == {number: [number] for number in range(4)}


def test_lines_that_are_damaged_or_of_other_work_are_passed_over(tmp_path: Path):
    journal = Journal(tmp_path, [b"work"])
    for number in range(4):
        journal.add(number, [number])
    [file] = tmp_path.iterdir()
    lines = file.read_text().replace("\n\n", "\n").splitlines()[1:]
    swapped = [lines[1], lines[0], *lines[1:]]
    file.write_text("\n".join(swapped) + "\n")
    assert Journal(tmp_path, [b"work"]).answers == {number: [number] for number in range(4)}
    damaged = [lines[0], lines[1].replace("[1]", "[7]"), lines[2].replace('"piece": 2', '"piece": 1'), lines[3]]
    file.write_text("\n".join(damaged) + "\n")
    assert Journal(tmp_path, [b"work"]).answers == {0: [0], 3: [3]}
    Journal(tmp_path, [b"other"]).add(0, [9])
    [theirs] = set(tmp_path.iterdir()) - {file}
    file.write_bytes(theirs.read_bytes() + "\n".join(lines).encode())
    assert Journal(tmp_path, [b"work"]).answers == {number: [number] for number in range(4)}


def test_a_folder_that_was_removed_meanwhile_ends_nothing(tmp_path: Path):
    journal = Journal(tmp_path / "journals", [b"work"])
    journal.add(0, [0])
    shutil.rmtree(tmp_path / "journals")
    journal.add(1, [1])
    assert journal.answers == {0: [0], 1: [1]}


def test_what_the_journal_has_is_not_computed_again(tmp_path: Path):
    computed: list[int] = []

    def compute(numbers: Sequence[int]) -> Iterator[str]:
        for number in numbers:
            computed.append(number)
            yield "abcd"[number]

    with pytest.raises(KeyboardInterrupt):
        complete(4, compute, Journal(tmp_path, [b"work"]), stopping(0.3))
    assert computed == [0, 1]
    shares: list[float] = []
    assert complete(4, compute, Journal(tmp_path, [b"work"]), shares.append) == ["a", "b", "c", "d"]
    assert computed == [0, 1, 2, 3]
    assert shares == [0.75, 1.0]
    assert Journal(tmp_path, [b"work"]).answers == dict(enumerate("abcd"))


def test_lm_evals_own_way_resumes_at_the_slice_that_was_not_finished(
    tmp_path: Path, build: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("compresslab.evaluation.engines.plain.SLICE", 5)
    model = build("mamba")
    undisturbed = TreeLM(model, tokenizer).loglikelihood(scored())
    with pytest.raises(KeyboardInterrupt):
        TreeLM(model, tokenizer, journals=tmp_path, progress=stopping(0.5)).loglikelihood(scored())
    forward, read = model.forward, []
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: (read.append(len(args[0])), forward(*args, **kwargs))[1])
    again = TreeLM(model, tokenizer, journals=tmp_path)
    assert again.loglikelihood(scored()) == undisturbed
    assert again.engine == "plain"
    assert 0 < sum(read) <= len(PAIRS) - 10  # two of four slices were finished
