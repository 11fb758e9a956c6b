"""transformers loads a saved variant in another process, with equal logits and equal bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compresslab.errors import RunFailed
from compresslab.models.load import Loaded, check_finite, load, load_folder, probe_logits
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.digests import tensor_digests
from models.architectures import swept_model
from models.tiny import make, make_tokenizer, saved


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_the_folder_gives_the_same_logits_in_a_process_that_knows_nothing_of_compresslab(tmp_path: Path):
    loaded = make("qwen3")
    save(loaded, tmp_path / "model")
    torch.save(probe_logits(loaded.model), tmp_path / "probe.pt")
    script = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, probe = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
ids = (torch.arange(48) * 7919 + 11) % model.config.vocab_size
expected = torch.load(probe)
with torch.no_grad():
    assert torch.equal(model(ids[None]).logits.float(), expected)
assert AutoTokenizer.from_pretrained(folder).decode(AutoTokenizer.from_pretrained(folder)("The fox").input_ids) == "The fox"
assert "compresslab" not in sys.modules
print("equal")
"""
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "probe.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == "equal", done.stderr


def test_reload_difference_sees_one_changed_weight(tmp_path: Path):
    loaded = make("llama")
    save(loaded, tmp_path)
    assert reload_difference(tmp_path, probe_logits(loaded.model)) == 0
    loaded.model.model.norm.weight.data[3] *= 2
    assert reload_difference(tmp_path, probe_logits(loaded.model)) > 1e-3


def test_reload_difference_of_a_folder_that_does_not_load_is_a_failed_run(tmp_path: Path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"gone")
    with pytest.raises(RunFailed, match="does not load in plain transformers"):
        reload_difference(tmp_path, torch.zeros(1))


def test_the_same_weights_give_the_same_bytes_wherever_they_came_from(tmp_path: Path):
    loaded = make("gemma3")
    save(loaded, tmp_path / "a")
    save(loaded, tmp_path / "b")
    save(load_folder(tmp_path / "a"), tmp_path / "far" / "away" / "c")
    save(load(str(tmp_path / "b")), tmp_path / "d")
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "far" / "away" / "c") == digests(tmp_path / "d")
    for path in (tmp_path / "d").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name} tells where it was made"


def test_logits_that_are_not_finite_fail_the_run_and_say_whose_they_are():
    loaded = make("llama")
    check_finite(loaded, "prune depth")
    loaded.model.lm_head.weight.data[7] = float("nan")
    with pytest.raises(RunFailed, match=r"quantize rtn: \d+% of the probe's logits are not finite"):
        check_finite(loaded, "quantize rtn")


def test_the_probe_says_what_the_model_says():
    loaded = make("gemma2")
    got = probe_logits(loaded.model)
    assert got.shape == (1, 48, loaded.model.config.vocab_size)
    assert got.dtype == torch.float32
    assert torch.equal(got, probe_logits(loaded.model))


def test_rounding_is_forgiven_only_where_all_tensors_are_equal_and_only_rounding(tmp_path: Path):
    loaded = make("llama")
    tensors = tensor_digests(loaded.model)
    save(loaded, tmp_path)
    probe = probe_logits(loaded.model)
    rounded = probe + 0.02 * probe.std() * torch.randn(probe.shape, generator=torch.Generator().manual_seed(0))
    assert reload_difference(tmp_path, rounded, tensors) == 0.0
    assert reload_difference(tmp_path, -probe, tensors) > 1e-3
    with pytest.raises(RunFailed, match=r"the saved folder has other weights.*: lm_head\.weight$"):
        reload_difference(tmp_path, probe, {**tensors, "lm_head.weight": "another"})


@pytest.mark.parametrize("tied", [True, False])
def test_repacked_files_are_copied_with_the_tie_that_the_model_has_where_a_multimodal_config_leaves_it_out(tmp_path: Path, tied: bool):
    """The config of the whole is silent, that of its text part speaks."""
    model = swept_model("gemma3")
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    given = tmp_path / "given"
    model.save_pretrained(given)
    config = json.loads((given / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    config["text_config"]["tie_word_embeddings"] = tied
    (given / "config.json").write_text(json.dumps(config))
    del model.config.tie_word_embeddings
    save(Loaded(model, make_tokenizer(), files=given), tmp_path / "copy")
    copied = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert copied.get("tie_word_embeddings", True) is tied
    assert copied["text_config"]["tie_word_embeddings"] is tied
