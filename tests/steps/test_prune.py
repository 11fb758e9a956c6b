"""Pruning: what is dropped is what the scores say, and what is left works as a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.tiny import ARCHITECTURES, make, make_model, text
from transformers import PreTrainedModel

from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.models.load import Loaded, load_folder, probe_logits
from compresslab.recipe.schema import PruneDepth, PruneWidth
from compresslab.steps.contract import Context, run, silent
from compresslab.steps.prune_depth import drop_layers, kept_layers, layer_influence
from compresslab.steps.prune_width import kept_width, neuron_importance

TWO = PruneDepth(method="depth", keep=2)


def silence(model: PreTrainedModel, number: int) -> None:
    """Make a layer pass on what it gets."""
    for name, parameter in model.base_model.layers[number].named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")):
            parameter.data.zero_()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt-neox", "qwen3-moe", "smollm3"])
def test_the_layers_that_do_nothing_are_dropped_and_nothing_is_lost(tmp_path: Path, name: str):
    loaded = make(name, torch.float32)
    for number in (0, 2):
        silence(loaded.model, number)
    before = probe_logits(loaded.model)
    done = run("prune", TWO, loaded, Context(text()), tmp_path)
    assert done.record.details["dropped_layers"] == [0, 2]
    influence = done.record.details["block_influence"]
    assert max(influence[0], influence[2]) < 1e-5 < min(influence[1], influence[3])
    assert torch.equal(done.probe, before)


def test_the_least_influential_layers_go_whichever_they_are(tmp_path: Path):
    influence = layer_influence(make("llama").model, text().ids, silent)
    done = run("prune", PruneDepth(method="depth", keep=3), make("llama"), Context(text()), tmp_path)
    assert done.record.details["block_influence"] == [round(value, 6) for value in influence]
    assert done.record.details["dropped_layers"] == [influence.index(min(influence))]


def test_influence_does_not_depend_on_how_the_text_is_batched(monkeypatch: pytest.MonkeyPatch):
    model, ids = make_model("llama", torch.float32), text(7, 16).ids
    together = layer_influence(model, ids, silent)
    monkeypatch.setattr("compresslab.models.text.TOKENS_A_BATCH", 32)
    assert layer_influence(model, ids, silent) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma2", "gemma3", "gpt-neox", "qwen3-moe", "smollm3"])
def test_a_pruned_model_is_consistent_and_generates_with_its_cache(tmp_path: Path, name: str):
    run("prune", TWO, make(name, torch.float32), Context(text()), tmp_path)
    model = load_folder(tmp_path).model
    kept = [layer for layer in range(4) if layer not in dropped(tmp_path, name)]
    whole = make_model(name, torch.float32)
    assert model.config.num_hidden_layers == len(model.base_model.layers) == 2
    for setting in ("layer_types", "no_rope_layers"):
        listed = getattr(whole.config, setting, None)
        if listed is not None:
            assert getattr(model.config, setting) == [listed[number] for number in kept]
    # Longer than the sliding window of 8, so that the cache has to forget.
    prompt = text(2, 12).ids
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": -1, "attention_mask": torch.ones_like(prompt)}
    assert torch.equal(model.generate(prompt, use_cache=True, **settings), model.generate(prompt, use_cache=False, **settings))


def dropped(folder: Path, name: str) -> list[int]:
    """Which layers of the whole model are not in the folder, told by their weights."""
    whole, part = make_model(name, torch.float32).base_model.layers, load_folder(folder).model.base_model.layers
    first = [next(iter(layer.parameters())) for layer in whole]
    there = {number for number in range(4) for layer in part if torch.equal(first[number], _twin(whole, layer, number))}
    return [number for number in range(4) if number not in there]


def _twin(whole: torch.nn.ModuleList, layer: torch.nn.Module, number: int) -> torch.Tensor:
    name = next(iter(dict(whole[number].named_parameters())))
    return layer.get_parameter(name)


def test_layer_numbers_run_from_zero_in_memory_too():
    model = make_model("qwen3")
    drop_layers(model, [1, 3])
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    assert model.model.config.num_hidden_layers == 2, "the backbone and the head share one config"


def test_a_layer_whose_kind_follows_from_its_number_does_not_move():
    model = make_model("qwen3-moe", mlp_only_layers=[0])
    before, settings = probe_logits(model), model.config.to_dict()
    with pytest.raises(
        UnsupportedModel, match=r"qwen3_moe: prune depth would move layer 2 to place 0.* Qwen3MoeSparseMoeBlock .* Qwen3MoeMLP"
    ):
        drop_layers(model, [2, 3])
    assert model.config.to_dict() == settings
    assert torch.equal(probe_logits(model), before)
    drop_layers(model, [0, 3])
    assert len(model.model.layers) == 2


def test_keep_is_a_number_or_a_share():
    assert kept_layers(3, 4) == 3
    assert kept_layers(0.5, 30) == 15
    assert kept_width(PruneWidth(method="width", keep=100), 128) == 100
    assert kept_width(PruneWidth(method="width", keep=0.6), 1536) == 928
    assert kept_width(PruneWidth(method="width", keep=0.6, multiple=64), 1536) == 896


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"gpt-neox", "qwen3-moe"}))
def test_neurons_that_are_silent_are_pruned_and_nothing_is_lost(tmp_path: Path, name: str):
    loaded = make(name, torch.float32)
    generator = torch.Generator().manual_seed(0)
    for layer in loaded.model.model.layers:
        silent_ones = torch.randperm(128, generator=generator)[:32]
        layer.mlp.up_proj.weight.data[silent_ones] = 0
        if layer.mlp.up_proj.bias is not None:
            layer.mlp.up_proj.bias.data[silent_ones] = 0
    before = probe_logits(loaded.model)
    done = run("prune", PruneWidth(method="width", keep=96), loaded, Context(text()), tmp_path)
    assert done.record.details["activation_energy_lost"] == [0.0] * 4
    torch.testing.assert_close(done.probe, before, rtol=1e-4, atol=1e-4)
    assert done.record.size.parameters == sum(p.numel() for p in load_folder(tmp_path).model.parameters())


def test_the_matrices_are_really_narrower_and_keep_the_most_active_neurons(tmp_path: Path):
    importance = neuron_importance(make("llama-tied").model, text().ids, silent)
    before = make("llama-tied").model.model.layers[2].mlp
    done = run("prune", PruneWidth(method="width", keep=0.5), make("llama-tied"), Context(text()), tmp_path)
    best = sorted(sorted(range(128), key=lambda neuron: -importance[2][neuron])[:64])
    mlp = load_folder(tmp_path).model.model.layers[2].mlp
    assert torch.equal(mlp.gate_proj.weight, before.gate_proj.weight[best])
    assert torch.equal(mlp.up_proj.bias, before.up_proj.bias[best])
    assert torch.equal(mlp.down_proj.weight, before.down_proj.weight[:, best])
    assert torch.equal(mlp.down_proj.bias, before.down_proj.bias)
    lost = 1 - importance[2][best].sum() / importance[2].sum()
    assert done.record.details["activation_energy_lost"][2] == pytest.approx(lost.item(), abs=1e-6)


def test_importance_does_not_depend_on_how_the_text_is_batched(monkeypatch: pytest.MonkeyPatch):
    model, ids = make_model("llama", torch.float32), text(7, 16).ids
    together = neuron_importance(model, ids, silent)
    monkeypatch.setattr("compresslab.models.text.TOKENS_A_BATCH", 32)
    torch.testing.assert_close(neuron_importance(model, ids, silent), together, rtol=1e-4, atol=0)


def test_a_dead_layer_loses_nothing_when_it_is_cut(tmp_path: Path):
    loaded = make("llama")
    loaded.model.model.layers[1].mlp.up_proj.weight.data.zero_()
    done = run("prune", PruneWidth(method="width", keep=64), loaded, Context(text()), tmp_path)
    assert done.record.details["activation_energy_lost"][1] == 0


@pytest.mark.parametrize(
    ("config", "what"),
    [(TWO, "block influence of layer 2 is nan"), (PruneWidth(method="width", keep=64), "neuron importance of layer 2 is nan")],
)
def test_scores_that_mean_nothing_stop_the_step_before_it_cuts(tmp_path: Path, config: PruneDepth | PruneWidth, what: str):
    loaded: Loaded = make("llama")
    loaded.model.model.layers[2].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=f"the {what}: the activations are not finite"):
        run("prune", config, loaded, Context(text()), tmp_path / "model")
    assert len(loaded.model.model.layers) == 4
    assert loaded.model.model.layers[0].mlp.up_proj.out_features == 128
    assert not (tmp_path / "model").exists()


def test_no_hook_stays_behind():
    model = make_model("llama")
    layer_influence(model, text().ids, silent)
    neuron_importance(model, text().ids, silent)
    assert not any(module._forward_hooks for module in model.modules())
