"""Divergence of two models on a text, against a direct computation from whole logits."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from models.tiny import LINES, make, saved, text

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation.text_divergence import divergences, text_divergence
from compresslab.models import chunks
from compresslab.models.load import Loaded
from compresslab.models.progress import silent
from compresslab.models.save import save
from compresslab.models.text import TokenSequences, sequences
from compresslab.recipe.schema import FidelityText
from compresslab.records.compute import PROCESSOR


def by_hand(child: Loaded, parent: Loaded, ids: torch.Tensor) -> tuple[list[float], float]:
    """KL(parent || child) a sequence and the agreement, from the logits that the models themselves give."""
    tokens = max(child.tokenizer.get_vocab().values()) + 1
    with torch.no_grad():
        q, p = (one.model(input_ids=ids).logits[..., :tokens].double().softmax(-1) for one in (child, parent))
    return (p * (p / q).log()).sum(-1).mean(1).tolist(), float((p.argmax(-1) == q.argmax(-1)).double().mean())


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-neox"])
def test_the_divergence_is_that_of_whole_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", 304 * 50)  # no multiple of a sequence
    parent, child = make(name, torch.float32), make(name, torch.float32, seed=1)
    ids = text(6, 24).ids
    kl, agreement = by_hand(child, parent, ids)
    found = divergences(child, parent, TokenSequences(ids, ""), silent)
    assert found.kl.tolist() == pytest.approx(kl, rel=1e-5)
    assert found.agreement == pytest.approx(agreement)
    assert min(kl) > 0.1
    assert by_hand(parent, child, ids)[0] != pytest.approx(kl, rel=1e-2)


def test_what_stored_logits_tell_is_the_divergence_of_the_largest_and_the_rest_and_never_more() -> None:
    parent, child = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    ids = text(6, 24).ids
    tokens = max(child.tokenizer.get_vocab().values()) + 1
    with torch.no_grad():
        q, p = (one.model(input_ids=ids).logits[..., :tokens].double().softmax(-1) for one in (child, parent))
    found = divergences(child, parent, TokenSequences(ids, ""), silent, [1, 16, tokens - 1, tokens])
    assert list(found.top_k) == [1, 16, tokens - 1], "no fewer than all tokens are no part of them"
    for k in (1, 16):
        chosen = p.topk(k).indices
        largest_p, largest_q = p.gather(-1, chosen), q.gather(-1, chosen)
        rest_p, rest_q = 1 - largest_p.sum(-1), 1 - largest_q.sum(-1)
        told = (largest_p * (largest_p / largest_q).log()).sum(-1) + rest_p * (rest_p / rest_q).log()
        assert found.top_k[k] == pytest.approx(float(told.mean()), rel=1e-4)
    whole = float(found.kl.mean())
    assert 0 < found.top_k[1] < found.top_k[16] < whole
    assert found.top_k[tokens - 1] == pytest.approx(whole, rel=1e-5)  # the rest is one token


def test_logits_of_padding_have_no_probability() -> None:
    """A head with rows for no token changes nothing, in one of the two models or in both."""
    parent, child = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    ids = text(2, 16).ids
    expected, _ = by_hand(child, parent, ids)
    for one in (child, parent):
        one.model.resize_token_embeddings(400, mean_resizing=False)
        assert divergences(child, parent, TokenSequences(ids, ""), silent).kl.tolist() == pytest.approx(expected, rel=1e-5)


def test_folders_are_compared_on_the_text_of_the_recipe(tmp_path: Path) -> None:
    parent, child = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    for folder, one in (("parent", parent), ("child", child)):
        save(one, tmp_path / folder)
    (tmp_path / "text.txt").write_text("\n\n\n".join(LINES * 4))
    config = FidelityText(source=str(tmp_path / "text.txt"), tokens=100, length=32, seed=3)
    found = text_divergence(tmp_path / "child", tmp_path / "parent", config, PROCESSOR._replace(dtype="float32"), silent)
    tokens = sequences(config.source, parent.tokenizer, 4, 32, 3)  # 100 tokens begin a fourth sequence of 32
    kl, agreement = by_hand(child, parent, tokens.ids)
    assert (found.kl.items, found.length, found.sha256, found.source) == (4, 32, tokens.sha256, config.source)
    assert found.kl.value == pytest.approx(mean(kl), rel=1e-5)
    assert found.kl.stderr == pytest.approx(stdev(kl) / math.sqrt(4), rel=1e-4)
    assert found.agreement == pytest.approx(agreement)
    assert (found.weights, found.parent_weights) == ("as stored", "as stored")


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", dtype=torch.float32)
    (tmp_path / "text.txt").write_text("\n\n\n".join(LINES))
    config = FidelityText(source=str(tmp_path / "text.txt"), tokens=16, length=16)
    found = text_divergence(folder, folder, config, PROCESSOR, silent)
    assert (found.kl.value, found.kl.stderr, found.agreement) == (0.0, None, 1.0)


def test_another_vocabulary_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder, other = saved(tmp_path / "model"), make()
    other.tokenizer.add_tokens(["<more>"])
    save(other, tmp_path / "other")
    config = FidelityText(source="installed-docs")
    with pytest.raises(BadInput, match=r"^the parent has another vocabulary \(.*'<more>', is not in both\).*leave evaluate.fidelity out"):
        text_divergence(folder, tmp_path / "other", config, PROCESSOR, silent)


def test_logits_that_are_not_finite_give_no_divergence() -> None:
    parent, child = make("llama", torch.float32), make("llama", torch.float32, seed=1)
    ids = text(2, 16).ids
    with torch.no_grad():
        child.model.get_input_embeddings().weight[ids[1, 5]] = torch.nan  # of a token that is in the text, and not in the probe
    with pytest.raises(RunFailed, match="not finite"):
        divergences(child, parent, TokenSequences(ids, ""), silent)
