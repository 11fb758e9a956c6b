"""A saved folder states its rotary embedding and its tokenizer as transformers 4 reads them, and version 5 reads the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from compresslab.models.load import Loaded, load_folder, probe_logits
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.digests import tensor_digests

from .tiny import COMMON, GROUPED, make, make_model, make_tokenizer

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 5e4}
LLAMA_3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 64, "rope_theta": 5e5},
}


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def in_version_5(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    return {name: value for name, value in read.items() if name not in ("_name_or_path", "transformers_version")}


@pytest.mark.parametrize(
    ("rope", "theta", "scaling"),
    [
        ({"rope_type": "default", "rope_theta": 1e5}, 1e5, None),
        (YARN, 5e4, {name: value for name, value in YARN.items() if name != "rope_theta"}),
        (LLAMA_3, 5e5, {name: value for name, value in LLAMA_3.items() if name != "rope_theta"}),
    ],
)
def test_rotary_parameters_are_stated_both_ways_and_are_one_model(
    tmp_path: Path, rope: dict[str, Any], theta: float, scaling: dict[str, Any] | None
):
    loaded = make("llama", rope_parameters=rope)
    loaded.model.save_pretrained(tmp_path / "plain")
    save(loaded, tmp_path / "saved")
    found = config_of(tmp_path / "saved")
    assert found["rope_theta"] == theta
    assert found.get("rope_scaling") == scaling
    assert in_version_5(tmp_path / "saved") == in_version_5(tmp_path / "plain")
    assert reload_difference(tmp_path / "saved", probe_logits(loaded.model), tensor_digests(loaded.model)) == 0


def test_an_architecture_with_names_of_its_own_has_them(tmp_path: Path):
    loaded = make("gpt-neox", rope_parameters={"rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.5})
    loaded.model.save_pretrained(tmp_path / "plain")
    save(loaded, tmp_path / "saved")
    found = config_of(tmp_path / "saved")
    assert (found["rotary_emb_base"], found["rotary_pct"]) == (3e4, 0.5)
    assert in_version_5(tmp_path / "saved")["rope_parameters"] == in_version_5(tmp_path / "plain")["rope_parameters"]
    assert reload_difference(tmp_path / "saved", probe_logits(loaded.model), tensor_digests(loaded.model)) == 0


def test_the_two_bases_of_gemma_3_are_stated_both_ways(tmp_path: Path):
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    loaded = make("gemma3", rope_parameters=rope)
    loaded.model.save_pretrained(tmp_path / "plain")
    save(loaded, tmp_path / "saved")
    found = config_of(tmp_path / "saved")
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (1e6, 2e4)
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert in_version_5(tmp_path / "saved") == in_version_5(tmp_path / "plain")


def olmo3(rope: dict[str, Any]) -> Loaded:
    torch.manual_seed(0)
    config = AutoConfig.for_model("olmo3", **COMMON, **GROUPED, sliding_window=8, rope_parameters=rope)
    return Loaded(AutoModelForCausalLM.from_config(config).eval(), make_tokenizer())


def test_the_scaling_of_olmo_3_is_stated_both_ways(tmp_path: Path):
    """transformers 4 scales the layers without a window alone, too, and has one base for all."""
    window = {"rope_type": "default", "rope_theta": YARN["rope_theta"]}
    loaded = olmo3({"full_attention": {**YARN}, "sliding_attention": window})
    loaded.model.save_pretrained(tmp_path / "plain")
    save(loaded, tmp_path / "saved")
    found = config_of(tmp_path / "saved")
    assert found["rope_theta"] == YARN["rope_theta"]
    assert found["rope_scaling"] == {name: found["rope_parameters"]["full_attention"][name] for name in found["rope_scaling"]}
    assert found["rope_scaling"]["rope_type"] == "yarn"
    assert in_version_5(tmp_path / "saved") == in_version_5(tmp_path / "plain")
    assert reload_difference(tmp_path / "saved", probe_logits(loaded.model), tensor_digests(loaded.model)) == 0


def test_what_version_4_cannot_say_of_olmo_3_is_not_said_wrongly(tmp_path: Path):
    rope = {which: {"rope_type": "default", "rope_theta": theta} for which, theta in (("full_attention", 1e6), ("sliding_attention", 1e4))}
    save(olmo3(rope), tmp_path / "saved")
    assert not {"rope_theta", "rope_scaling"} & config_of(tmp_path / "saved").keys()


def test_the_tokenizer_has_a_class_and_special_tokens_that_version_4_knows(tmp_path: Path):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|think|>"]})
    save(Loaded(make_model("llama"), tokenizer), tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<|think|>"]
    assert "extra_special_tokens" not in settings
    read = AutoTokenizer.from_pretrained(tmp_path)
    text = "the lazy fox <|think|> é"
    assert read(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert read.all_special_tokens == tokenizer.all_special_tokens


def test_a_folder_that_is_saved_again_is_the_same(tmp_path: Path):
    save(make("llama", rope_parameters=YARN), tmp_path / "first")
    save(load_folder(tmp_path / "first"), tmp_path / "second")
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
