"""Dimensions that no model has are refused in the plan, in one sentence that names the field."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.plan.rules import start
from compresslab.recipe.model_config import DIMENSIONS, read_config
from compresslab.recipe.model_folder import check_claims

CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, "num_attention_heads": 4}


def written(folder: Path, content: str) -> Path:
    tensors = {f"w{number}": {"dtype": "U8", "shape": [100], "data_offsets": [100 * number, 100 * number + 100]} for number in range(4)}
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(400))
    (folder / "config.json").write_text(content)
    return folder / "config.json"


WRONG = {
    "many": "'many'",
    "-3": "-3",
    "[64]": r"\[64\]",
    "1e400": "inf",
    "NaN": "nan",
    "64.0": "64.0",
    "true": "True",
    "{}": "{}",
    str(10**30): "1000000000",
}


@pytest.mark.parametrize("name", [name for name in DIMENSIONS if not name.endswith("intermediate_size")])
@pytest.mark.parametrize("value", WRONG)
def test_a_dimension_is_a_whole_number_that_a_model_may_have(tmp_path: Path, name: str, value: str):
    stated = value if value != "many" else '"many"'
    written(tmp_path, json.dumps(CONFIG | {name: "?"}).replace('"?"', stated))
    least, most = DIMENSIONS[name]
    with pytest.raises(BadInput, match=rf"config\.json: {name} is {WRONG[value]}.*not a whole number from {least} to {most:,}; download"):
        start(str(tmp_path))


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("nested", [False, True])
def test_what_no_architecture_computes_must_be_stated(tmp_path: Path, name: str, nested: bool):
    config = CONFIG | {name: None}
    written(tmp_path, json.dumps({"text_config": config} if nested else config))
    where = f"text_config.{name}" if nested else name
    with pytest.raises(BadInput, match=rf"config\.json: {where} is null, not a whole number"):
        start(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        {},
        CONFIG,
        CONFIG | {"head_dim": None, "num_key_value_heads": None, "num_experts": 0, "moe_intermediate_size": None},
        CONFIG | {"intermediate_size": [64, 128]},  # Gemma 3n has one for each layer
        {"hidden_size": "of an image encoder", "text_config": CONFIG},
        {"text_config": None},
    ],
)
def test_what_transformers_takes_is_not_refused(tmp_path: Path, config: dict[str, object]):
    config = {"model_type": "llama", **config}
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    assert read_config(written(tmp_path, json.dumps(config))) == config
    start(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("[]", "is no JSON object"),
        ('{"text_config": 3}', "text_config is 3, not a JSON object"),
        ('{"intermediate_size": []}', r"intermediate_size is \[\], not a whole number"),
        ('{"intermediate_size": [64, -1]}', r"intermediate_size is \[64, -1\], not a whole number"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "cannot be read"),
        ('{"hidden_size": "' + "x" * 5000 + '"}', "hidden_size is 'x{58}…, not"),
    ],
)
def test_a_configuration_that_is_none_is_one_sentence(tmp_path: Path, content: str, said: str):
    with pytest.raises(BadInput, match=rf"config\.json:? {said}") as caught:
        read_config(written(tmp_path, content))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"num_hidden_layers": 2048}, "num_hidden_layers is 2,048, and its weights have 4 tensors"),
        ({"vocab_size": 2**24}, r"hidden_size x vocab_size is 1,073,741,824, and its weights have \d+ bytes"),
        ({"intermediate_size": 2**20}, "num_hidden_layers x hidden_size x intermediate_size is 268,435,456"),
        ({"head_dim": 2**14}, "num_attention_heads x head_dim is 16,777,216"),
        ({"num_experts": 4096, "moe_intermediate_size": 2**14}, "moe_intermediate_size x experts is 4,294,967,296"),
    ],
)
def test_dimensions_far_beyond_the_weights_are_refused_before_anything_is_allocated(tmp_path: Path, claim: dict[str, int], said: str):
    written(tmp_path, json.dumps(CONFIG | claim))
    with pytest.raises(BadInput, match=rf"config\.json: .*{said}.*the configuration is not that of these weights"):
        check_claims(tmp_path)
