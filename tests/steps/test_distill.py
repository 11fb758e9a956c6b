"""Distillation with every divergence, stored logits, hidden states, and on-policy text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, make_tokenizer, text
from torch import Tensor

from compresslab.algorithms.forward_kl import forward_kl
from compresslab.errors import BadInput
from compresslab.methods.distill import Distill
from compresslab.methods.settings import Optimizer
from compresslab.models.calibration import scratch, stored_logits
from compresslab.models.calibration.stored_logits import StoredLogits, store_logits
from compresslab.models.load import Loaded
from compresslab.models.text import TokenSequences
from compresslab.steps import distill
from compresslab.steps.contract import Context, Saved, run, silent
from compresslab.steps.training.hidden_matching import HiddenMatching
from compresslab.steps.training.on_policy import continue_sequences, is_on_policy
from compresslab.steps.training.trainer import MicroBatch

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]

BATCH = Optimizer(learning_rate=3e-3, batch_tokens=256, micro_batch_tokens=128)
METHODS = ("forward-kl", "reverse-kl", "jsd", "skewed-kl")


def config(**settings: Any) -> Distill:
    return Distill(**{"tokens": 2048, "optimizer": BATCH, **settings})


def teacher() -> Loaded:
    """A teacher with high probabilities of some tokens, like a trained one."""
    loaded = make("llama", torch.float32, seed=1)
    loaded.model.lm_head.weight.data *= 3
    return loaded


def distilled(folder: Path, sequences: int = 64, student: Loaded | None = None, gathered: Path | None = None, **settings: Any) -> Saved:
    other = None if gathered is not None else teacher()
    return run("distill", config(**settings), student or make(), Context(text(sequences, 32), other, gathered=gathered), folder)


def losses(saved: Saved) -> list[float]:
    found: list[float] = saved.record.details["loss"]
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 8},
        pytest.param({"hidden": 0.5}, marks=pytest.mark.slow),
        pytest.param({"on_policy": 0.5, "prompt": 8}, marks=pytest.mark.slow),
    ],
    ids=lambda given: "-".join(given),
)
def test_every_divergence_falls_in_every_variant(tmp_path: Path, method: str, settings: dict[str, Any]):
    curve = losses(distilled(tmp_path, method=method, **settings))
    assert len(curve) == 8
    assert sum(curve[-2:]) < 0.98 * sum(curve[:2])


@pytest.mark.slow
def test_each_method_is_another_loss_and_its_settings_count(tmp_path: Path):
    cases: list[dict[str, Any]] = [
        *({"method": method} for method in METHODS),
        {"method": "jsd", "beta": 0.2},
        {"method": "skewed-kl", "skew": 0.3},
        {"temperature": 2.0},
        {"cross_entropy": 0.5},
        {"hidden": 0.5},
    ]
    first = [losses(distilled(tmp_path / str(number), 8, **case))[0] for number, case in enumerate(cases)]
    assert len(set(first)) == len(cases)


def test_the_share_of_the_next_token_loss_is_a_share(tmp_path: Path):
    """A mix of two losses is their weighted mean."""
    at = {share: losses(distilled(tmp_path / str(share), 8, cross_entropy=share))[0] for share in (0.0, 0.25, 0.75)}
    whole = at[0.0] + (at[0.75] - at[0.0]) / 0.75
    assert at[0.25] == pytest.approx(0.75 * at[0.0] + 0.25 * whole, rel=1e-3)
    assert whole == pytest.approx(torch.tensor(304.0).log().item(), rel=0.3)


# Stored logits


def stored(folder: Path, top_k: int = 8, words: TokenSequences | None = None) -> StoredLogits:
    store_logits(teacher(), words or text(64, 32), top_k, folder, silent)
    return StoredLogits(folder)


@torch.no_grad()
def teacher_log_probabilities(ids: Tensor) -> Tensor:
    """The teacher's log-probabilities, by plain transformers, over the tokenizer's vocabulary."""
    return teacher().model(ids).logits[..., : len(make_tokenizer())].log_softmax(-1)


def test_what_is_stored_is_what_the_teacher_says(tmp_path: Path):
    words = text(64, 32)
    kept = stored(tmp_path)
    rows = torch.tensor([5, 0, 63])
    tokens, log_probabilities = kept.read(rows)
    largest, _ = teacher_log_probabilities(words.ids[rows]).topk(8)
    torch.testing.assert_close(log_probabilities[..., :8], largest, rtol=2**-10, atol=1e-3)
    torch.testing.assert_close(teacher_log_probabilities(words.ids[rows]).gather(-1, tokens), largest, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(3, 32), rtol=0, atol=2e-3)


def test_the_size_on_disk_is_what_it_says(tmp_path: Path):
    kept = stored(tmp_path)
    assert kept.bytes_per_token == 8 * 2 + 9 * 2  # 302 tokens of the tokenizer need two bytes
    files = list(tmp_path.glob("*.safetensors"))
    headers = 256 * len(files)
    assert 64 * 32 * kept.bytes_per_token <= sum(file.stat().st_size for file in files) <= 64 * 32 * kept.bytes_per_token + headers


def test_many_files_read_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = stored(tmp_path / "one").read(torch.arange(64))
    monkeypatch.setattr(stored_logits, "FILE_BYTES", 5 * 32 * (8 * 2 + 9 * 2))
    many = stored(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) == 13
    order = torch.randperm(64)
    again = many.read(order)
    assert torch.equal(again.tokens, one.tokens[order])
    torch.testing.assert_close(again.log_probabilities, one.log_probabilities[order], rtol=0, atol=0.02)


def test_a_text_that_is_gone_over_again_is_stored_once_and_read_in_its_order(tmp_path: Path):
    once = text(16, 32)
    numbers = torch.cat([torch.arange(16), torch.randperm(16)])
    often = TokenSequences(once.ids[numbers], once.sha256, numbers)
    stored(tmp_path / "a", words=once)
    stored(tmp_path / "b", words=often)
    assert (tmp_path / "a" / "logits-00000.safetensors").read_bytes() == (tmp_path / "b" / "logits-00000.safetensors").read_bytes()
    kept = StoredLogits(tmp_path / "a")
    kept.check(make(), often)
    objective = distill.stored_logits_objective(kept, config(top_k=8))
    for rows in (slice(0, 4), slice(20, 24)):
        part = objective(MicroBatch(often.input.rows(rows), often.numbers[rows], 0))
        truth = teacher_log_probabilities(often.ids[rows])
        full = forward_kl(truth.flatten(0, 1), truth.flatten(0, 1))
        assert part.chunk_loss(truth.flatten(0, 1), slice(0, 128)).item() == pytest.approx(full.item(), abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_on_stored_logits_bounds_the_full_one_and_comes_near_it(tmp_path: Path, method: str):
    full = losses(distilled(tmp_path / "full", 8, method=method))[0]
    found = [losses(distilled(tmp_path / str(top_k), 8, method=method, top_k=top_k))[0] for top_k in (4, 32, 256)]
    assert found[0] < found[1] < found[2] < 1.01 * full
    assert found[2] == pytest.approx(full, rel=0.1)


def test_stored_for_all_or_for_itself_a_student_learns_the_same(tmp_path: Path):
    stored(tmp_path / "shared")
    alone = distilled(tmp_path / "alone", top_k=8)
    together = distilled(tmp_path / "together", top_k=8, gathered=tmp_path / "shared")
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() == (tmp_path / "together" / "model.safetensors").read_bytes()
    assert together.record.details["stored_bytes_per_token"] == 34
    assert alone.record == together.record


def test_a_student_that_reads_less_of_the_text_is_served_too(tmp_path: Path):
    stored(tmp_path / "shared")
    less = TokenSequences(text(64, 32).ids[:16], "another digest, since fewer documents were read")
    done = run("distill", config(top_k=8), make(), Context(less, gathered=tmp_path / "shared"), tmp_path / "model")
    assert len(losses(done)) == 2


def test_stored_logits_for_another_text_or_vocabulary_are_refused(tmp_path: Path):
    kept = stored(tmp_path / "shared", words=text(8, 32))
    with pytest.raises(BadInput, match=r"for another text: sequence 9 of the training text .* \(it read 8\)"):
        kept.check(make(), TokenSequences(torch.cat([text(8, 32).ids, text(64, 32).ids]), "more"))
    moved = text(8, 32)
    moved.ids[3, 5] += 1
    with pytest.raises(BadInput, match="for another text: sequence 4 of the training text"):
        kept.check(make(), moved)
    foreign = Loaded(make().model, make_tokenizer(["Zebras zigzag; zebras zigzag; zebras zigzag."]))
    with pytest.raises(BadInput, match="of a teacher with another vocabulary"):
        kept.check(foreign, text(8, 32))
    with pytest.raises(BadInput, match="top_k 304 is not below the vocabulary"):
        store_logits(teacher(), text(8, 32), 304, tmp_path / "all", silent)


def test_scratch_logits_go_when_the_step_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    distilled(tmp_path / "model", 8, top_k=4)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_summary_names_what_it_is_of(tmp_path: Path):
    stored(tmp_path, words=text(2, 32))
    summary = json.loads((tmp_path / "logits.json").read_text())
    assert (summary["text"], summary["top_k"], len(summary["sequences"])) == ("a rule", 8, 2)


# Hidden states


def test_hidden_states_are_matched_layer_by_layer_up_to_the_last():
    pairs = {
        (ours, theirs): HiddenMatching(make(num_hidden_layers=ours).model, make(num_hidden_layers=theirs).model).pairs
        for ours, theirs in ((2, 4), (3, 4), (4, 4), (4, 2))
    }
    assert pairs[2, 4] == [(1, 2), (2, 4)]
    assert pairs[3, 4] == [(1, 1), (2, 3), (3, 4)]
    assert pairs[4, 4] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert pairs[4, 2] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_equal_hidden_states_match_and_states_of_zeros_miss_by_all():
    model = make().model
    states = tuple(torch.randn(2, 3, 64) for _ in range(5))
    assert HiddenMatching(model, model)(states, states).item() == 0
    assert HiddenMatching(model, model)(tuple(0 * state for state in states), states).item() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"num_hidden_layers": 2}, {"hidden_size": 32}, {"hidden_size": 128, "num_hidden_layers": 3}])
def test_a_student_of_other_sizes_learns_from_hidden_states(tmp_path: Path, sizes: dict[str, int]):
    done = distilled(tmp_path, student=make(**sizes), hidden=2.0)
    assert losses(done)[-1] < losses(done)[0]
    assert sum(parameter.numel() for parameter in done.loaded.model.parameters()) == sum(
        parameter.numel() for parameter in make(**sizes).model.parameters()
    ), "the projectors are thrown away"


def test_matching_hidden_states_brings_them_nearer(tmp_path: Path):
    """Compared with the same training without this loss."""

    def distance(saved: Saved) -> float:
        with torch.no_grad():
            ours, theirs = (
                side.model.float().base_model(text(8).ids, output_hidden_states=True).hidden_states for side in (saved.loaded, teacher())
            )
        return HiddenMatching(saved.loaded.model, teacher().model)(ours, theirs).item()

    plain, matched = (distance(distilled(tmp_path / str(weight), hidden=weight)) for weight in (0.0, 20.0))
    assert matched < 0.98 * plain


# On-policy


def test_the_share_of_on_policy_batches_is_spread_evenly():
    assert [is_on_policy(step, 0.25) for step in range(8)] == [False, False, False, True] * 2
    assert all(is_on_policy(step, 1.0) for step in range(5))
    assert not any(is_on_policy(step, 0.0) for step in range(5))


def test_the_student_goes_on_from_the_prompt_to_the_full_length_whatever_its_own_settings_ask():
    loaded, ids = make(), text(8, 32).ids
    loaded.model.generation_config.update(eos_token_id=list(range(300)), repetition_penalty=9.0, top_k=1, max_length=10)
    torch.manual_seed(0)
    own = continue_sequences(loaded.model, ids, 5)
    assert own.shape == ids.shape
    assert torch.equal(own[:, :5], ids[:, :5])
    assert not torch.equal(own, ids)
    assert loaded.model.generation_config.repetition_penalty == 9.0
    torch.manual_seed(0)
    assert torch.equal(continue_sequences(loaded.model, ids, 5), own)
    assert not torch.equal(continue_sequences(loaded.model, ids, 5), own)


def test_the_draws_follow_the_students_own_distribution():
    loaded = make()
    prompt = text(1, 8).ids.expand(4000, 8)
    torch.manual_seed(0)
    drawn = continue_sequences(loaded.model, prompt, 7)[:, 7]
    with torch.no_grad():
        expected = loaded.model(prompt[:1, :7]).logits[0, -1].float().softmax(-1)
    found = torch.bincount(drawn, minlength=len(expected)) / 4000
    assert (found - expected).abs().max() < 4 * (expected * (1 - expected) / 4000).sqrt().max()


def test_only_what_the_student_wrote_counts():
    student, words = make(), text(4, 32)
    teach = distill.teacher_objective(student, teacher(), config(on_policy=1.0, prompt=20, cross_entropy=0.9), None)
    torch.manual_seed(0)
    objective = teach(MicroBatch(words.input, words.numbers, 0))
    counted = objective.counted(torch.arange(32).expand(4, 32)[..., None], words.input)
    assert counted.flatten().tolist() == list(range(19, 31)) * 4
    with torch.no_grad():
        ours, theirs = (side.model(objective.text.ids).logits[:, 19:31].flatten(0, 1) for side in (student, teacher()))
    assert objective.chunk_loss(ours, slice(0, 48)).item() == pytest.approx(forward_kl(ours, theirs).item(), rel=1e-3), "no next-token loss"


@pytest.mark.parametrize(("ours", "theirs"), [(320, 304), (304, 320)])
def test_logits_of_a_padded_vocabulary_take_no_part(ours: int, theirs: int):
    student, other, words = make(vocab_size=ours), make(vocab_size=theirs, seed=1), text(4, 32)
    objective = distill.teacher_objective(student, other, config(), None)(MicroBatch(words.input, words.numbers, 0))
    with torch.no_grad():
        logits, target = (side.model(words.ids).logits.flatten(0, 1) for side in (student, other))
        raised = torch.cat([logits[:, :304], logits[:, 304:] + 50], 1)
        expected = forward_kl(logits[:, :304], target[:, :304]).item()
        for given in (logits, raised):
            assert objective.chunk_loss(given, slice(0, 128)).item() == pytest.approx(expected, rel=1e-3)


def test_a_prompt_that_leaves_nothing_to_write_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="prompt 32 is not below the 32 tokens of a sequence"):
        distilled(tmp_path / "model", on_policy=0.5, prompt=32)
    assert not (tmp_path / "model").exists()
