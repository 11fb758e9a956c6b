"""The compute dtype does not change the dtype of a folder, nor any byte of results that the weights alone decide."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import COMMON, THIRD_PARTY_WARNINGS, make, make_tokenizer, text
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from compresslab.methods.depth import PruneDepth
from compresslab.methods.registry import method
from compresslab.methods.settings import Optimizer
from compresslab.models.computing import computing, computing_temporarily
from compresslab.models.load import load, load_folder, probe_logits
from compresslab.models.save import reload_difference, save
from compresslab.recipe.steps import Step
from compresslab.records.compute import Compute
from compresslab.steps.contract import Context, Saved, run
from compresslab.steps.retrain import language_modelling
from compresslab.steps.training.master_weights import MasterWeights
from compresslab.steps.training.trainer import TrainSettings, train
from steps.methods import METHOD_CONFIGS, OTHER_KERNEL, REFUSED, context

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

METHODS = [name for name in METHOD_CONFIGS if (name, "llama") not in REFUSED]
# gptqmodel's AWQ kernel for processors multiplies in 16 bits whatever comes in.
ROUNDS_INPUTS = ("awq",)


def step(name: str, folder: Path, compute: torch.dtype) -> Saved:
    kind, config = METHOD_CONFIGS[name]
    needed = context(name, "llama")
    if needed.other is not None:
        computing(needed.other.model, compute)
    return run(kind, config, make("llama"), needed._replace(compute=compute), folder)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def dtypes(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118, it is no dict
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_folder_has_the_storage_dtype_whatever_computes(tmp_path: Path, name: str):
    wide, narrow = step(name, tmp_path / "wide", torch.float32), step(name, tmp_path / "narrow", torch.bfloat16)
    assert dtypes(tmp_path / "wide") == dtypes(tmp_path / "narrow")
    assert wide.record.size.stored_bytes == narrow.record.size.stored_bytes
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "bfloat16"
    kind, config = METHOD_CONFIGS[name]
    if method(kind, config.method).computes:
        assert (wide.record.compute["dtype"], narrow.record.compute["dtype"]) == ("float32", "bfloat16")
    else:
        assert wide.record == narrow.record
        assert wide.record.compute == {}
        assert digests(tmp_path / "wide") == digests(tmp_path / "narrow")


@pytest.mark.parametrize("name", METHODS)
def test_a_folder_reloads_in_the_compute_dtype_of_its_step(tmp_path: Path, name: str):
    done = step(name, tmp_path, torch.float32)
    difference = reload_difference(tmp_path, done.probe, done.tensors if name in OTHER_KERNEL else None, Compute("float32"))
    assert difference == 0 if name not in OTHER_KERNEL else difference < 1e-3


@pytest.mark.parametrize("name", [name for name in METHODS if METHOD_CONFIGS[name][0] == "quantize" and name not in ROUNDS_INPUTS])
def test_packed_weights_take_inputs_in_the_compute_dtype(tmp_path: Path, name: str):
    done = step(name, tmp_path, torch.float32)
    model = computing(load_folder(tmp_path).model, torch.float32)
    seen = []
    model.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    assert probe_logits(model).shape == done.probe.shape
    assert seen == [torch.float32]


def test_computing_for_now_gives_the_very_weights_back():
    model = make("llama").model
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    with computing_temporarily(model, torch.float32):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.data_ptr() == before[name] for name, parameter in model.named_parameters())
    assert model.config.dtype == torch.bfloat16


def test_with_float32_compute_the_weights_are_their_own_masters():
    model = make("llama", torch.float32).model
    before = {parameter.data_ptr() for parameter in model.parameters()}
    masters = MasterWeights([model], torch.float32)
    assert {weight.data_ptr() for weight in masters.weights} == before
    assert {parameter.data_ptr() for parameter in model.parameters()} == before
    masters.release()
    assert {parameter.data_ptr() for parameter in model.parameters()} == before


def test_frozen_weights_that_the_compute_dtype_holds_are_kept_once_and_come_back_exactly():
    model = make("llama").model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    before = {name: parameter.data.clone() for name, parameter in model.named_parameters()}
    masters = MasterWeights([model], torch.float32)
    assert all(frozen.original is None for frozen in masters._frozen)
    masters.release()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.data, before[name].to(parameter.dtype))


def test_frozen_weights_that_the_compute_dtype_rounds_come_back_exactly():
    model = make("llama", torch.float32).model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    before = {name: parameter.data.clone() for name, parameter in model.named_parameters()}
    masters = MasterWeights([model], torch.bfloat16)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    masters.release()
    assert all(torch.equal(parameter.data, before[name]) for name, parameter in model.named_parameters())


def test_training_in_float32_is_plain_adamw_on_the_weights():
    optimizer = Optimizer(batch_tokens=64, micro_batch_tokens=32, max_grad_norm=1e9)
    ours, theirs, data = make("llama").model, make("llama").model.float(), text(6, 32)
    losses = train(ours, data, TrainSettings(optimizer, 0, lambda *_: None, compute=torch.float32), language_modelling).losses
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    from compresslab.steps.training.trainer import learning_rate_factor

    for number in range(3):
        ids = data.ids[2 * number : 2 * number + 2]
        logits = theirs(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="mean")
        assert abs(losses[number] - loss.item()) < 1e-4
        adam.param_groups[0]["lr"] = optimizer.learning_rate * learning_rate_factor(optimizer, number, 3)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_losses_hardly_depend_on_the_compute_dtype(tmp_path: Path):
    losses = [step("full", tmp_path / str(dtype), dtype).record.details["loss"] for dtype in (torch.float32, torch.bfloat16)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert Context().dtype(make("llama").model) == torch.bfloat16


@pytest.mark.parametrize("name", ["full", "forward-kl"])
def test_training_in_float16_is_training_in_float32(tmp_path: Path, name: str):
    half, wide = step(name, tmp_path / "half", torch.float16), step(name, tmp_path / "wide", torch.float32)
    assert half.record.compute == wide.record.compute
    if name == "full":  # the teacher of the other is one in float16
        assert digests(tmp_path / "half") == digests(tmp_path / "wide")
    assert half.record.details["loss"] == pytest.approx(wide.record.details["loss"], rel=1e-3)


@pytest.mark.parametrize("by", ["block-influence", "angular-distance", "loss"])
def test_every_search_for_layers_runs_in_the_compute_dtype(tmp_path: Path, by: str):
    loaded, seen = make("llama"), set()
    loaded.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))
    run("prune", PruneDepth(method="depth", keep=2, by=by), loaded, Context(text(4, 32), compute=torch.float32), tmp_path)
    assert torch.float32 in seen
    assert torch.bfloat16 not in seen


def test_a_buffer_of_the_config_is_the_same_whatever_computes(tmp_path: Path):
    save(make("gemma3", hidden_size=96), tmp_path)  # whose square root bfloat16 rounds
    stored, wide = load_folder(tmp_path).model, load_folder(tmp_path, torch.float32).model
    scales = [float(model.model.embed_tokens.embed_scale.to(model.dtype)) for model in (stored, wide)]
    assert scales[0] == scales[1]


def saved_random(folder: Path, kind: str, **settings: Any) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **settings}), dtype=torch.float32)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


EXPERTS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
MLA: dict[str, Any] = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}


RETRAIN = Step.model_validate({"retrain": {"method": "full", "tokens": 256, "optimizer": {"batch_tokens": 128}}})


def test_a_router_that_is_kept_in_float32_is_saved_so_after_training(tmp_path: Path):
    base = load(str(saved_random(tmp_path / "hub", "deepseek_v3", **EXPERTS, **MLA)), "bfloat16")
    save(base, tmp_path / "base")
    before = {name: tensor.dtype for name, tensor in load_file(tmp_path / "base" / "model.safetensors").items()}
    assert set(before.values()) == {torch.float32, torch.bfloat16}
    context = Context(text(8, 32), compute=torch.float32)
    done = run(RETRAIN.kind, RETRAIN.config, load_folder(tmp_path / "base"), context, tmp_path / "done")
    assert {name: tensor.dtype for name, tensor in load_file(tmp_path / "done" / "model.safetensors").items()} == before
    assert reload_difference(tmp_path / "done", done.probe, done.tensors, Compute("float32")) == 0


def test_frequencies_that_a_long_text_has_changed_are_no_other_weights(tmp_path: Path):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    saved_random(tmp_path / "hub", "llama", hidden_size=32, intermediate_size=48, max_position_embeddings=16, rope_parameters=rope)
    context = Context(text(8, 32), compute=torch.float32)
    done = run(RETRAIN.kind, RETRAIN.config, load(str(tmp_path / "hub"), "bfloat16"), context, tmp_path / "done")
    assert reload_difference(tmp_path / "done", done.probe, done.tensors, Compute("float32")) < 1e-3
