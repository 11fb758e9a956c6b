"""Models from folders, GGUF files and the hub are loaded completely or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from compresslab.errors import BadInput, UnsupportedModel
from compresslab.models.anatomy import check_linear, decoder_layers, gated_mlps, output_head
from compresslab.models.load import cast, load, load_folder, probe_logits
from compresslab.plan.rules import start
from models.tiny import ARCHITECTURES, make_model, saved

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("good"))


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def normaliser(settings: dict[str, Any]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": settings}))

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickled_by_an_index(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "weights.bin")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, "weights.bin")}))


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


REFUSED: dict[str, tuple[Change, str]] = {
    "pickled weights": (pickled, "no safetensors weights; pickled weights are not loaded, because they can run code"),
    "weights that an index names": (pickled_by_an_index, "names 'weights.bin' as weights; pickled weights are not loaded"),
    "weights that the configuration names": (
        config(transformers_weights="adapter_model.bin"),
        "names 'adapter_model.bin' as weights; pickled weights are not loaded",
    ),
    "damaged weights": (truncated, "a weight file of .* is damaged"),
    "dimensions that take all memory": (config(vocab_size=2**24), "hidden_size x vocab_size is .*, and its weights have .* bytes"),
    "a normaliser that ends in a panic of the library": (
        normaliser({"type": "Precompiled", "precompiled_charsmap": "AAAAAP8="}),
        "does not load as a causal language model: PanicException: Precompiled",
    ),
    "a normaliser that asks for four gigabytes": (
        normaliser({"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "/////w=="}]}),
        r"tokenizer\.json: the precompiled_charsmap of its normaliser is damaged",
    ),
    "fewer layers than the config says": (config(num_hidden_layers=6), r"states 6 layers, and the weights have none of number 4"),
    "other widths than the config says": (config(intermediate_size=64), r"layers\.0\.mlp\..* is stored as .*128.*makes it .*64"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{nope"), r"config\.json cannot be read"),
    "an unknown architecture": (config(model_type="foo"), "model type `foo`"),
    "an architecture without language": (config(model_type="vit"), "does not load as a causal language model"),
    "code of its own": (config(model_type="mine", auto_map={"AutoConfig": "c.C"}), "base.trust_remote_code: true"),
    "a package that is missing": (
        config(quantization_config={"quant_method": "aqlm", "in_group_size": 8}),
        r"needs a package that is not installed .*compresslab\[gptq\]",
    ),
    "a tokenizer that is damaged": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "KeyError: 'added_tokens'"),
    "no tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "does not load as a causal language model: .*tokenizer",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_is_no_whole_model_is_refused_in_one_message(good: Path, tmp_path: Path, what: str):
    change, reason = REFUSED[what]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change(folder)
    with pytest.raises(BadInput, match=reason) as caught:
        load(str(folder))
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(b"not a model")
    with pytest.raises(BadInput, match=r"a\.gguf is no GGUF file: it does not begin as one"):
        load(str(tmp_path / "a.gguf"))


def test_want_of_memory_is_not_blamed_on_the_model(good: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("compresslab.models.load.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(RuntimeError, match="not enough memory"):
        load(str(good))


def test_a_hub_out_of_reach_gives_one_message_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput) as caught:
        load("nobody-at-all/made-up-model@abc")
    message = str(caught.value)
    assert "nobody-at-all/made-up-model could not be loaded from the model hub" in message
    assert "offline:smollm2-135m-instruct" in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_come_in_the_dtype_asked_for(good: Path, dtype: Any):
    loaded = load(str(good), dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert not loaded.model.training


def test_casting_there_and_back_leaves_the_rotary_frequencies_and_the_logits_alone(good: Path):
    model = load_folder(good).model
    before, frequencies = probe_logits(model), model.model.rotary_emb.inv_freq.clone()
    cast(model, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    cast(model, torch.bfloat16)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert model.config.dtype == torch.bfloat16
    assert torch.equal(probe_logits(model), before)


def test_casting_keeps_tied_weights_tied():
    model = cast(make_model("qwen2"), torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_output_head_gives_the_models_own_logits(name: str):
    model = make_model(name, torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(output_head(model)(hidden), model(ids).logits)


def test_an_architecture_with_another_head_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = make_model("llama")
    inner = model.lm_head.forward
    monkeypatch.setattr(model, "get_output_embeddings", lambda: lambda hidden: inner(hidden) * 1.1)
    with pytest.raises(UnsupportedModel, match="its logits are not its output embedding times the last hidden state"):
        output_head(model)


def test_layers_in_an_unknown_place_are_refused_by_name():
    model = make_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(UnsupportedModel, match=r"no list of decoder layers at LlamaModel\.layers"):
        decoder_layers(model)


def test_mlps_of_different_widths_are_refused_because_a_config_states_one():

    model = make_model("llama")
    assert len(gated_mlps(model)) == 4
    model.model.layers[2].mlp.down_proj = torch.nn.Linear(32, 64, bias=False)
    with pytest.raises(UnsupportedModel, match=r"one MLP width in every layer.*32, 128"):
        gated_mlps(model)


def test_models_of_linear_layers_pass_and_fused_experts_do_not():
    for name in set(ARCHITECTURES) - {"qwen3-moe"}:
        check_linear(make_model(name), "rtn")
    with pytest.raises(UnsupportedModel, match=r"rtn quantizes linear layers, and \d\d% .* in Qwen3MoeExperts"):
        check_linear(make_model("qwen3-moe"), "rtn")


def test_an_index_of_the_hub_names_safetensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers would load pickled weights that an index names, although it is told to take safetensors."""
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"w": "weights.bin"}}))
    monkeypatch.setattr("transformers.utils.cached_file", lambda _, name, **__: str(tmp_path / "index.json") if "index" in name else None)
    with pytest.raises(BadInput, match=r"names 'weights\.bin' as weights"):
        load("owner/name")


def test_a_configuration_of_the_hub_names_safetensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text(json.dumps({"transformers_weights": "adapter_model.bin"}))
    monkeypatch.setattr("transformers.utils.cached_file", lambda _, name, **__: str(tmp_path / name) if name == "config.json" else None)
    with pytest.raises(BadInput, match=r"config\.json names 'adapter_model\.bin' as weights"):
        load("owner/name")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (config(num_hidden_layers=6), "its weights lack model.layers.4"),
        (truncated, "a weight file of .* is damaged"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "KeyError: 'added_tokens'"),
    ],
)
def test_a_damaged_variant_is_one_message_and_no_part_of_it_is_random(good: Path, tmp_path: Path, change: Change, said: str):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change(folder)
    with pytest.raises(BadInput, match=said):
        load_folder(folder)


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of owner/name in a cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("a" * 40)
    return folder


def test_an_adapter_of_the_hub_is_refused_in_the_plan_and_when_it_is_loaded(snapshot: Path):
    (snapshot / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/other", "peft_type": "LORA"}))
    for refuse in (start, load):
        with pytest.raises(BadInput, match=r"owner/name has an adapter \(adapter_config\.json\); merge it into its model"):
            refuse("owner/name")


def test_a_configuration_of_the_hub_is_checked(snapshot: Path):
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": "many"}))
    with pytest.raises(BadInput, match=r"config\.json: hidden_size is 'many', not a whole number"):
        load("owner/name")
