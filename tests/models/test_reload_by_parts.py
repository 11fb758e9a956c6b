"""The check of a saved folder by parts: it says what the check of the whole folder says, and notices a changed weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from steps.methods import METHOD_CONFIGS

from compresslab.errors import RunFailed
from compresslab.models.computing import computing
from compresslab.models.load import load_folder, probe_logits
from compresslab.models.streamed import check, result
from compresslab.models.streamed.check import Check, check_reload
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.open import open_by_layers
from compresslab.records.compute import Compute
from compresslab.steps.contract import Context, run
from models.tiny import ARCHITECTURES, THIRD_PARTY_WARNINGS, saved, text

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
FLOAT32 = Compute()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is checked by parts, of one layer or a hundred rows each."""
    monkeypatch.setattr(check, "WHOLE_PARAMETERS", 0)
    monkeypatch.setattr(check, "PART_PARAMETERS", 100 * 2 * 64)
    monkeypatch.setattr(check.gc, "collect", lambda: 0)  # it takes most of the time of a part this small


def checked(folder: Path, of: Path | None = None) -> Check:
    """The check of a folder against the model of another one; without it, against its own."""
    loaded = load_folder(of or folder)
    tensors = tensor_digests(loaded.model)
    return check_reload(folder, probe_logits(computing(loaded.model, torch.float32)), tensors, FLOAT32)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_is_equal_by_parts(name: str, tmp_path: Path):
    assert checked(saved(tmp_path, name)) == Check(0.0, by_parts=True)


@pytest.mark.parametrize("method", ["width all", "magnitude", "rtn", "gptq", "awq"])
def test_a_saved_step_is_equal_by_parts(method: str, tmp_path: Path):
    kind, config = METHOD_CONFIGS[method]
    made = run(kind, config, open_by_layers(saved(tmp_path / "model")), Context(text(4), compute=torch.float32), tmp_path / "made")
    assert check_reload(tmp_path / "made", made.probe, made.tensors, FLOAT32) == Check(0.0, by_parts=True)


def test_only_the_files_of_the_index_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # As after an earlier save with more files. transformers does not read it, either.
    monkeypatch.setattr(result, "SHARD_BYTES", 50_000)
    kind, config = METHOD_CONFIGS["magnitude"]
    made = run(kind, config, open_by_layers(saved(tmp_path / "model")), Context(compute=torch.float32), tmp_path / "made")
    assert len(list((tmp_path / "made").glob("model-*.safetensors"))) > 1
    save_file({"model.layers.0.mlp.up_proj.weight": torch.ones(3, 3)}, tmp_path / "made" / "old.safetensors", {"format": "pt"})
    assert check_reload(tmp_path / "made", made.probe, made.tensors, FLOAT32) == Check(0.0, by_parts=True)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"])
def test_a_changed_weight_is_told(name: str, tmp_path: Path):
    folder, other = saved(tmp_path / "saved"), saved(tmp_path / "changed")
    tensors = load_file(other / "model.safetensors")
    tensors[name][-1] += 1  # of a vocabulary, a row that the probe may not read
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunFailed, match="the saved folder has other weights"):
        checked(other, of=folder)


def test_a_missing_layer_is_told(tmp_path: Path):
    folder, other = saved(tmp_path / "saved"), saved(tmp_path / "changed")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if "layers.3." not in name}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunFailed, match="the saved folder has other weights"):
        checked(other, of=folder)
