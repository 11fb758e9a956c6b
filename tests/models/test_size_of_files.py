"""What is counted is what the files hold and transformers loads, whatever the configuration says and whatever lies beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compresslab.errors import RunFailed
from compresslab.models.counting.size import nonzero_of, size_of, stored_tensors
from compresslab.models.load import load
from compresslab.models.save import save
from compresslab.plan.model_files import dimensions_of
from compresslab.recipe.model_folder import files_of
from compresslab.recipe.source import Source
from compresslab.records import Size

from .architectures import swept_model
from .tiny import VOCABULARY, make_model, make_tokenizer, saved


def as_base(given: Path, folder: Path) -> Size:
    """The size of the copy that a study makes of a base."""
    loaded = load(str(given), "bfloat16")
    save(loaded, folder)
    return size_of(folder, nonzero_of(loaded.model))


def changed(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("same", [True, False])
def test_a_head_in_the_file_counts_if_it_differs_from_the_embedding_that_the_config_ties_it_to(tmp_path: Path, same: bool):
    given = saved(tmp_path / "given", "llama-tied")
    tensors = load_file(given / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": embedding.clone() if same else -embedding}, given / "model.safetensors", {"format": "pt"})
    size = as_base(given, tmp_path / "base")
    tied = sum(tensor.numel() for tensor in tensors.values())
    assert size.parameters == tied + (0 if same else embedding.numel())
    assert size.counted == tied
    # Other tools believe the configuration.
    assert json.loads((tmp_path / "base" / "config.json").read_text())["tie_word_embeddings"] is same


def test_layers_in_the_file_that_the_config_does_not_have_count_nowhere(tmp_path: Path):
    given = saved(tmp_path / "given")
    changed(given, num_hidden_layers=2)
    expected = make_model("llama", num_hidden_layers=2).num_parameters()
    size = as_base(given, tmp_path / "base")
    assert size.parameters == expected
    assert size.stored_bytes == 2 * expected
    planned = dimensions_of(Source("folder", str(given)))
    assert planned is not None
    assert planned.parameters == expected


def test_weights_beside_those_that_are_loaded_are_neither_counted_nor_digested_nor_copied(tmp_path: Path):
    given = saved(tmp_path / "given", "llama")
    alone = (as_base(given, tmp_path / "alone"), set(files_of(given)), stored_tensors(given))
    make_model("llama", seed=5).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    for file in (tmp_path / "shards").glob("model*"):
        file.rename(given / file.name)
    save_file({"model.norm.weight": torch.zeros(8)}, given / "consolidated.safetensors")
    assert (as_base(given, tmp_path / "beside"), set(files_of(given)), stored_tensors(given)) == alone
    assert sorted(file.name for file in (tmp_path / "beside").glob("*safetensors*")) == ["model.safetensors"]


def test_more_weights_that_are_not_zero_than_parameters_are_an_error(tmp_path: Path):
    folder = saved(tmp_path)
    parameters = size_of(folder, 1).parameters
    with pytest.raises(RunFailed, match=rf"{parameters + 1:,} of its weights are not zero, and it has {parameters:,} parameters"):
        size_of(folder, parameters + 1)


def test_files_that_hold_more_than_the_model_of_the_config_are_an_error(tmp_path: Path):
    folder = saved(tmp_path)
    changed(folder, num_hidden_layers=3)
    with pytest.raises(RunFailed, match=r"its files hold .* values, and the model of its configuration has .*; its parameters cannot be"):
        size_of(folder, 1)


def test_a_token_meets_two_of_eight_experts_of_jetmoe_in_its_mlp_and_in_its_attention(tmp_path: Path):
    model = swept_model("jetmoe")
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    hidden, layers, experts, used, head, heads, mlp = 64, 3, 8, 2, 16, 4, 96
    attended = heads * head
    expert = hidden * attended * 2 + hidden * mlp * 3  # queries and outputs; gate and up in one matrix, and down
    # Keys and values, two routers, two biases of mixtures, two norms.
    shared = hidden * attended * 2 + 2 * hidden * experts + 2 * hidden + 2 * hidden
    outside = VOCABULARY * hidden + hidden
    size = size_of(tmp_path, nonzero_of(model))
    assert size.parameters == outside + layers * (shared + experts * expert)
    assert size.active == outside + layers * (shared + used * expert)
