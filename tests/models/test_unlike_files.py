"""Files that are not those of their configuration are refused, where headers tell by the plan, before they give another model's figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from compresslab.errors import BadInput
from compresslab.models.load import load
from compresslab.plan.rules import start

from .architectures import SWEPT, swept_model
from .tiny import make_tokenizer, saved

Tensors = dict[str, Tensor]


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Changes the tensors of a folder."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def configured(folder: Path, **fields: object) -> Path:
    """Changes the configuration of a folder."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


UNREAD = "for which the model of its configuration has no place, so it would be another model"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen2", r"its weights have model\.layers\.0\.self_attn\.k_proj\.bias and \d+ more"),
        ("qwen3", r"its weights have model\.layers\.0\.self_attn\.k_norm\.weight and \d+ more"),
    ],
)
def test_a_model_under_a_lesser_architecture_is_refused(tmp_path: Path, name: str, said: str):
    """transformers loads it with a warning, and what it scores then is no model of anyone."""
    folder = configured(saved(tmp_path, name), model_type="llama")
    with pytest.raises(BadInput, match=f"{said}, {UNREAD}; give the model with its own config"):
        load(str(folder), "float32")


def test_an_adapter_that_was_saved_in_the_weights_is_refused(tmp_path: Path):
    query = "model.layers.0.self_attn.q_proj"
    adapter = {f"{query}.lora_A.weight": torch.ones(4, 64), f"{query}.lora_B.weight": torch.ones(64, 4)}
    folder = rewritten(saved(tmp_path), lambda tensors: tensors | adapter)
    with pytest.raises(BadInput, match=rf"lora_A\.weight and 1 more, {UNREAD}; merge the adapter"):
        load(str(folder), "float32")


def test_what_is_known_to_be_left_out_is_left_out(tmp_path: Path):
    beside = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "model.layers.0.self_attn.k_scale": torch.tensor(1.0),
        "model.layers.4.eh_proj.weight": torch.ones(4, 4),  # a head for several tokens, in a layer beyond the last
        "mtp.norm.weight": torch.ones(4),
    }
    folder = rewritten(saved(tmp_path), lambda tensors: tensors | beside)
    load(str(folder), "float32")


@pytest.mark.parametrize("name", [*SWEPT])
def test_no_architecture_is_refused_for_its_own_files(tmp_path: Path, name: str):
    swept_model(name).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    start(str(tmp_path))
    load(str(tmp_path), "float32")


@pytest.mark.parametrize("layers", [6, 3])
def test_layers_that_are_not_in_the_files_are_refused_by_the_plan(tmp_path: Path, layers: int):
    folder = configured(saved(tmp_path), num_hidden_layers=layers)
    if layers == 3:
        folder = rewritten(folder, lambda tensors: {name.replace("layers.1.", "layers.9."): tensor for name, tensor in tensors.items()})
    with pytest.raises(
        BadInput, match=rf"config\.json states {layers} layers, and the weights have none of number {4 if layers == 6 else 1} "
    ):
        start(str(folder))


def test_embeddings_of_other_rows_than_the_vocabulary_are_refused_by_the_plan(tmp_path: Path):
    with pytest.raises(
        BadInput, match=r"embed_tokens\.weight has 304 rows, and config\.json states a vocab_size of 320; set it to the rows"
    ):
        start(str(configured(saved(tmp_path), vocab_size=320)))


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_packed_weights_without_their_settings_are_refused(tmp_path: Path, dtype: torch.dtype, name: str):
    """transformers takes the integers for weights."""

    def packed(tensors: Tensors) -> Tensors:
        return {name: (100 * tensor).to(dtype) if "proj" in name else tensor for name, tensor in tensors.items()}

    folder = rewritten(saved(tmp_path), packed)
    for read in (start, load):
        with pytest.raises(
            BadInput, match=rf"proj\.weight is stored as {name}, and config\.json states no quantization_config, so its scale"
        ):
            read(str(folder))
