"""`compresslab` in lm-eval's own command line."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from lm_eval.api.registry import get_model
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.errors import BadInput
from compresslab.evaluation import registered
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.load import Loaded, cast
from compresslab.models.save import save
from compresslab.records.compute import Probe

from .test_tree_lm import PAIRS, answers, same


def test_lm_eval_finds_the_model_by_its_name(tmp_path: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast):
    save(Loaded(llama, tokenizer), tmp_path)
    kind = get_model("compresslab")
    assert kind is registered.CommandLineLM
    lm = kind.create_from_arg_string(f"pretrained={tmp_path},dtype=float32,budget=16", {"batch_size": 4, "device": "cpu"})
    assert lm.budget == 16
    assert same(answers(lm, PAIRS), answers(TreeLM(llama, tokenizer), PAIRS))


def test_an_argument_that_means_nothing_here_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="takes pretrained, dtype, budget and device; it knows no parallelize"):
        registered.CommandLineLM(str(tmp_path), parallelize=True)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_auto_never_computes_in_less_than_is_stored(
    tmp_path: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype
):
    fast = Probe(device="cpu", backend="cpu", rates={}, slowdown={"float32": 1.0, "bfloat16": 0.4}, bandwidth=1e10)
    monkeypatch.setattr(registered, "probe", lambda *_: fast)
    save(Loaded(cast(deepcopy(llama), stored), tokenizer), tmp_path)
    assert registered.CommandLineLM(str(tmp_path), device="cpu").model.dtype == stored


def test_a_device_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="--device cuda:9: this machine has no such device"):
        registered.CommandLineLM(str(tmp_path), device="cuda:9")


@pytest.mark.parametrize(
    ("content", "said"), [("{nope", r"config\.json cannot be read"), ("[]", "no JSON object"), ('{"vocab_size": -1}', "vocab_size is -1")]
)
def test_a_damaged_configuration_is_one_message(tmp_path: Path, content: str, said: str):
    (tmp_path / "config.json").write_text(content)
    save_file({"model.norm.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=said):
        registered.CommandLineLM(str(tmp_path), device="cpu")


@pytest.mark.slow
def test_the_command_line_is_lm_evals():
    shown = subprocess.run([sys.executable, "-m", "compresslab.evaluation", "--help"], capture_output=True, text=True, check=True)
    assert "lm-eval" in shown.stdout
