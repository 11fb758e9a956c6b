"""Training on documents that are kept apart: the loss is the mean over the documents alone, whatever the micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models.architectures import swept_model
from models.tiny import THIRD_PARTY_WARNINGS, bounded_text, make, make_model, make_tokenizer

from compresslab.algorithms.forward_kl import forward_kl
from compresslab.errors import BadInput, UnsupportedModel
from compresslab.methods.distill import Distill
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.models.load import Loaded
from compresslab.models.text import TokenSequences
from compresslab.steps.contract import Context, run
from compresslab.steps.training.held_out import mean_loss, split

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]


def settings(micro: int = 256) -> dict[str, Any]:
    return {"tokens": 256, "optimizer": Optimizer(learning_rate=1e-9, batch_tokens=256, micro_batch_tokens=micro)}


def first_loss(kind: str, config: StepConfig, folder: Path, words: TokenSequences, **teacher: Any) -> float:
    other = make("llama", torch.float32, **teacher)
    loss: float = run(kind, config, make("llama", torch.float32), Context(words, other), folder).record.details["loss"][0]
    return loss


@pytest.mark.parametrize("micro", [32, 96, 256])
def test_the_training_loss_is_the_held_out_loss_in_micro_batches_of_any_size(tmp_path: Path, micro: int):
    words = bounded_text(8, 32)
    expected = mean_loss(make_model("llama", torch.float32), words.input)
    config = RetrainFull(method="full", **settings(micro))
    assert first_loss("retrain", config, tmp_path, words) == pytest.approx(expected, rel=1e-4)
    assert first_loss("retrain", config, tmp_path / "b", words._replace(bounded=False)) != pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("micro", [96, 256])
def test_the_divergence_is_that_of_positions_with_a_next_token_in_their_document(tmp_path: Path, micro: int):
    words = bounded_text(8, 32)
    with torch.no_grad():
        ours, theirs = (make_model("llama", torch.float32, seed)(**words.input.arguments).logits for seed in (0, 1))
    ours, theirs = (words.input.counted(logits, last=-1) for logits in (ours, theirs))
    expected = forward_kl(ours, theirs).item() / len(ours)
    found = first_loss("distill", Distill(**settings(micro)), tmp_path / "a", words, seed=1)
    stored = first_loss("distill", Distill(top_k=290, **settings(micro)), tmp_path / "b", words, seed=1)
    assert found == pytest.approx(expected, rel=1e-4)
    assert stored == pytest.approx(expected, rel=1e-2)


def test_the_mix_of_both_losses_is_their_mean(tmp_path: Path):
    words = bounded_text(8, 32)
    expected = mean_loss(make_model("llama", torch.float32), words.input)
    same = first_loss("distill", Distill(cross_entropy=0.5, **settings(96)), tmp_path, words)  # the teacher is the student
    assert same == pytest.approx(0.5 * expected, rel=1e-4)


def test_adapters_are_trained_on_documents_apart_too(tmp_path: Path):
    words = bounded_text(8, 32)
    expected = mean_loss(make_model("llama", torch.float32), words.input)
    config = RetrainLoRA(method="lora", rank=2, **settings())
    assert first_loss("retrain", config, tmp_path, words) == pytest.approx(expected, rel=1e-4)


def test_held_out_sequences_share_no_document_with_those_to_train_on():
    words = bounded_text(60, 32)
    left, held_out = split(words)
    assert words.documents is not None
    assert left.documents is not None
    first = words.documents[-len(held_out.ids), 0]
    assert len(held_out.ids) == 3
    assert left.documents.max() < first
    assert len(left.ids) in (56, 57)
    assert torch.equal(left.input.positions, words.input.positions[: len(left.ids)])  # type: ignore[index, arg-type]


def test_a_text_of_one_document_holds_nothing_out():
    words = bounded_text(40, 32)
    with pytest.raises(BadInput, match="no sequence before them is free of them"):
        split(words._replace(documents=torch.zeros_like(words.ids)))


def test_text_that_a_student_writes_has_no_documents(tmp_path: Path):
    with pytest.raises(BadInput, match="has no documents to keep apart"):
        first_loss("distill", Distill(on_policy=0.5, prompt=8, **settings()), tmp_path / "model", bounded_text(8, 32))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_model_that_does_not_keep_documents_apart_is_not_trained_on_them(tmp_path: Path, side: str):
    crossing, plain = Loaded(swept_model("bloom"), make_tokenizer()), make("llama")
    student, teacher = (crossing, plain) if side == "student" else (plain, crossing)
    with pytest.raises(UnsupportedModel, match="bloom does not keep the documents of a sequence apart"):
        run("distill", Distill(**settings()), student, Context(bounded_text(8, 32), teacher), tmp_path / "model")
