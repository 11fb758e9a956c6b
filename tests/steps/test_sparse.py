"""Unstructured and n:m pruning: which weights become zero, the error, and that training keeps the zeros."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.architectures import swept_model
from models.tiny import THIRD_PARTY_WARNINGS, make, text
from torch import nn

from compresslab.algorithms.hessian import gram, inverse_factor
from compresslab.algorithms.magnitude import magnitude
from compresslab.algorithms.sparsegpt import sparsegpt
from compresslab.algorithms.sparsity import kept_mask, kept_of_each
from compresslab.algorithms.wanda import wanda
from compresslab.errors import BadInput, RunFailed
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.settings import Optimizer
from compresslab.methods.sparse import PruneSparse
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.documents.boundaries import ModelInput
from compresslab.models.load import Loaded
from compresslab.models.surgery.shortening import drop_layers
from compresslab.steps.contract import Context, run

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]

SHORT = Optimizer(batch_tokens=64, micro_batch_tokens=32)


def layers_of(model: nn.Module) -> list[nn.Linear]:
    return [module for name, module in model.named_modules() if type(module) is nn.Linear and "layers." in name]


@pytest.fixture
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix and the second moments of correlated inputs of very different size."""
    torch.manual_seed(0)
    inputs = torch.randn(4096, 64) @ torch.randn(64, 256) * torch.logspace(-0.5, 0.5, 256)[torch.randperm(256)] + 0.1 * torch.randn(
        4096, 256
    )
    return torch.randn(96, 256), gram(inputs)


def output_error(weight: torch.Tensor, pruned: torch.Tensor, moments: torch.Tensor) -> float:
    miss = weight - pruned
    return float(((miss @ moments) * miss).sum())


def test_exactly_the_share_goes_within_each_row_or_within_the_layer():
    scores = torch.rand(8, 40)
    assert (kept_mask(scores, 0.5, "row").sum(1) == 20).all()
    assert kept_mask(scores, 0.3, "layer").sum() == 320 - 96
    assert kept_mask(torch.ones(2, 4), 0.5, "row").tolist() == [[False, False, True, True]] * 2, "of equals the first ones go"


def test_a_pattern_keeps_the_largest_of_each_few_neighbours():
    scores = torch.tensor([[1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]])
    assert kept_of_each(scores, 2, 4).tolist() == [[False, True, False, True, True, True, False, False]]


def test_the_methods_cost_less_and_less_of_the_output(layer: tuple[torch.Tensor, torch.Tensor]):
    weight, moments = layer
    by_size = weight * kept_mask(magnitude(weight), 0.5, "layer")
    by_input = weight * kept_mask(wanda(weight, moments.diagonal()), 0.5, "row")
    corrected = sparsegpt(weight, inverse_factor(moments, 0.01), 0.5)
    errors = [output_error(weight, pruned, moments) for pruned in (corrected, by_input, by_size)]
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[1], "correcting the weights that stay is worth more than half of the error here"
    assert (corrected == 0).float().mean() == pytest.approx(0.5, abs=0.01)


def test_what_sparsegpt_keeps_of_a_pattern_is_that_pattern(layer: tuple[torch.Tensor, torch.Tensor]):
    weight, moments = layer
    pruned = sparsegpt(weight, inverse_factor(moments, 0.01), 0.5, (2, 4))
    assert ((pruned != 0).reshape(96, -1, 4).sum(2) == 2).all()


def test_second_moments_that_cannot_be_inverted_are_told():
    with pytest.raises(ValueError, match="NaN or infinity"):
        inverse_factor(torch.full((4, 4), float("nan")), 0.01)
    with pytest.raises(ValueError, match="not positive definite with damping"):
        inverse_factor(-torch.eye(4) + 2 * torch.ones(4, 4) / 4, 1e-6)
    loaded = make("llama")
    loaded.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(RunFailed, match=r"layer [12], .*inputs on the calibration text are not finite .*; try dtype float32 or bfloat16"):
        run("prune", PruneSparse(method="sparsegpt", sparsity=0.5), loaded, Context(text(4, 32)), Path("never"))


@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma2", "gemma3", "gpt-neox", "mistral", "qwen3-moe"])
def test_layer_by_layer_gives_what_the_whole_model_gives(name: str):
    model, ids = make(name).model, text(4, 32).ids
    blocks = Blockwise(model, ModelInput(ids))
    for number in range(len(blocks.layers)):
        list(blocks.outputs_of(number))
    last: list[torch.Tensor] = []
    handle = blocks.layers[-1].register_forward_hook(lambda _, __, output: last.append(output[0] if isinstance(output, tuple) else output))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    handle.remove()
    torch.testing.assert_close(torch.cat(list(blocks.hidden)), torch.cat(last))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_keeps_the_zeros(method: str, tmp_path: Path):
    pruned = run("prune", PruneSparse(method="wanda", sparsity=0.5), make("llama"), Context(text(4, 32)), tmp_path / "pruned")
    zeros = [layer.weight == 0 for layer in layers_of(pruned.loaded.model)]
    before = [layer.weight.clone() for layer in layers_of(pruned.loaded.model)]
    config = (
        RetrainFull(method="full", tokens=128, optimizer=SHORT)
        if method == "full"
        else RetrainLoRA(method="lora", tokens=128, optimizer=SHORT)
    )
    trained = run("retrain", config, pruned.loaded, Context(text(4, 32)), tmp_path / "trained")
    after = [layer.weight for layer in layers_of(trained.loaded.model)]
    assert all(bool((weight[mask] == 0).all()) for weight, mask in zip(after, zeros, strict=True))
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert trained.record.size.nonzero < 0.75 * trained.record.size.parameters


def test_the_record_says_how_much_went(tmp_path: Path):
    done = run("prune", PruneSparse(method="magnitude", sparsity=0.25), make("llama"), Context(), tmp_path)
    assert done.record.details["sparsity"] == pytest.approx(0.25, abs=0.01)
    assert done.record.calibration_tokens == 0
    assert done.record.size.parameters - done.record.size.nonzero == pytest.approx(0.25 * done.record.details["weights"], rel=0.02)


def test_a_pattern_that_leaves_a_remainder_is_refused_by_layer(tmp_path: Path):
    with pytest.raises(BadInput, match=r"prune wanda: pattern 2:7 does not divide the 64 inputs of layers\.0\.self_attn"):
        run("prune", PruneSparse(method="wanda", pattern="2:7"), make("llama"), Context(text(4, 32)), tmp_path)


def with_silent_neurons(size: float = 1.0) -> Loaded:
    """A model half of whose neurons are always 0, the others small, with weights of `size` that read the silent ones."""
    loaded = make("llama", torch.float32)
    for layer in loaded.model.model.layers:
        layer.mlp.up_proj.weight.data *= 1e-3
        layer.mlp.up_proj.weight.data[::2] = 0
        layer.mlp.down_proj.weight.data[:, ::2] *= size
    return loaded


def test_sparsegpt_drops_weights_of_inputs_that_never_fire_before_any_other(tmp_path: Path):
    whole = with_silent_neurons().model.model.layers
    config = PruneSparse(method="sparsegpt", sparsity=0.5)
    pruned = run("prune", config, with_silent_neurons(), Context(text()), tmp_path).loaded.model.model.layers
    for before, after in zip(whole, pruned, strict=True):
        assert torch.equal(after.mlp.down_proj.weight[:, 1::2], before.mlp.down_proj.weight[:, 1::2])
        assert not after.mlp.down_proj.weight[:, ::2].any()


def test_gptq_makes_no_grid_wider_for_inputs_that_never_fire(tmp_path: Path):
    config = QuantizeGPTQ(method="gptq", bits=4, group_size=32)
    small, large = (
        run("quantize", config, with_silent_neurons(size), Context(text()), tmp_path / str(size)).loaded.model for size in (0.0, 100.0)
    )
    for one, other in zip(small.model.layers, large.model.layers, strict=True):
        assert torch.equal(one.mlp.down_proj.weight, other.mlp.down_proj.weight)


def test_inputs_that_never_fire_leave_the_damping_and_the_other_weights_as_they_are():
    inputs = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)) * 0.01
    alone = inverse_factor(gram(inputs), 0.01)
    among = inverse_factor(gram(torch.cat([inputs, torch.zeros(500, 32)], 1)), 0.01)
    torch.testing.assert_close(among[:32, :32], alone, rtol=1e-4, atol=1e-4 * float(alone.max()))
    assert not among[:32, 32:].any()
    assert torch.isfinite(inverse_factor(torch.zeros(8, 8), 0.01)).all()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["bloom", "gpt_neo", "llama"])
def test_the_form_of_a_layers_output_is_known_however_many_layers_there_are(name: str, layers: int):
    """BLOOM and GPT-Neo take the first of several outputs of a layer, Llama the output itself."""
    model = swept_model(name)
    drop_layers(model, list(range(layers)))
    blocks = Blockwise(model, text(2, 16).input)
    hidden = blocks.hidden[0]
    assert (blocks.returned(hidden) is hidden) == (name == "llama")
