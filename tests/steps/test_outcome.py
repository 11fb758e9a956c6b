"""A step whose files are not what its settings ask is refused with one sentence; what it rightly leaves alone is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, text
from torch import Tensor, nn

from compresslab.algorithms.gptq import Rounded
from compresslab.errors import RunFailed
from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.depth import PruneDepth
from compresslab.methods.distill import Distill
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.rtn import QuantizeRTN
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.methods.sparse import PruneSparse
from compresslab.methods.width import PruneWidth
from compresslab.models.formats import gptq as gptq_format
from compresslab.models.load import Loaded, load_folder
from compresslab.models.save import save
from compresslab.models.streamed.open import open_by_layers
from compresslab.steps import contract, prune_depth, prune_sparse, quantize_awq, quantize_gptq, quantize_rtn, retrain
from compresslab.steps.contract import Context, Saved, StepResult, run
from compresslab.steps.training import master_weights

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
SHORT = Optimizer(batch_tokens=64, micro_batch_tokens=32)
Opened = Callable[[Path], Loaded]
STEPS: dict[str, tuple[str, StepConfig]] = {
    "depth": ("prune", PruneDepth(method="depth", keep=2)),
    "depth parameters": ("prune", PruneDepth(method="depth", parameters=0.7)),
    "width": ("prune", PruneWidth(method="width", keep=64)),
    "width parameters": ("prune", PruneWidth(method="width", parameters=0.8)),
    "magnitude": ("prune", PruneSparse(method="magnitude", sparsity=0.5)),
    "wanda": ("prune", PruneSparse(method="wanda", sparsity=0.5)),
    "sparsegpt": ("prune", PruneSparse(method="sparsegpt", pattern="2:4")),
    "rtn": ("quantize", QuantizeRTN(method="rtn")),
    "gptq": ("quantize", QuantizeGPTQ(method="gptq")),
    "awq": ("quantize", QuantizeAWQ(method="awq")),
    "full": ("retrain", RetrainFull(method="full", tokens=128, optimizer=SHORT)),
    "lora": ("retrain", RetrainLoRA(method="lora", tokens=128, rank=4, optimizer=SHORT)),
    "forward-kl": ("distill", Distill(tokens=128, optimizer=SHORT)),
}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The model before a step."""
    save(make("llama"), tmp_path / "parent")
    return tmp_path / "parent"


def step(name: str, parent: Path, folder: Path, opened: Opened = load_folder) -> Saved:
    """A step as the runner makes it."""
    kind, config = STEPS[name]
    other = make("llama", seed=1) if kind == "distill" else None
    return run(kind, config, opened(parent), Context(text(4, 32), other, parent=parent), folder)


def refused(said: str, name: str, parent: Path, tmp_path: Path, opened: Opened = load_folder) -> None:
    """That the step is refused with this sentence."""
    with pytest.raises(RunFailed) as caught:
        step(name, parent, tmp_path / "made", opened)
    assert said in str(caught.value)
    assert str(caught.value).endswith("; nothing was kept")
    assert "\n" not in str(caught.value)


# A step that returns its input

UNCHANGED = {
    "depth": "prune depth: the recipe asks for 2 layers; the files have 4",
    "depth parameters": "the recipe asks for as many layers as fit into ",
    "width": "prune width: the recipe asks for 64 neurons; the files have 128 x 64 in place of 64 x 64 in model.layers.0.mlp.",
    "width parameters": "the files have 128 x 64 in place of ",
    "magnitude": "a share of 0.5 of zeros in each matrix of the decoder layers' linear layers; the files have a share of 0",
    "wanda": "a share of 0.5 of zeros in each row of the decoder layers' linear layers; the files have 0 zeros in a row of 64",
    "sparsegpt": "2:4 weights of the decoder layers' linear layers; the files have up to 4 of 4 that are not zero in model.layers.0.",
    "rtn": "weights of 4 bits in groups of 32 in every linear layer of the decoder layers; the files have plain weights in model.layers.0.",
    "full": "weights trained on 128 tokens; the files have the parent's, bit for bit, in model.layers.0.self_attn.q_proj and 27 more",
    "lora": "weights trained on 128 tokens; the files have the parent's, bit for bit, in model.layers.0.self_attn.q_proj and 27 more",
    "forward-kl": "distill forward-kl: the recipe asks for weights trained on 128 tokens; the files have the parent's, bit for bit,",
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_step_that_returns_its_input_is_refused(name: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(loaded: Loaded, config: Any, _: Context) -> StepResult:
        return StepResult(loaded.model, tokens_seen=getattr(config, "tokens", 0))

    kind, config = STEPS[name]
    monkeypatch.setattr(contract.importlib.import_module(contract.method_of(kind, config).module), "apply", nothing)
    refused(UNCHANGED[name], name, parent, tmp_path)


# A skipped layer


@pytest.mark.parametrize("opened", [load_folder, open_by_layers])
def test_a_layer_that_sparse_pruning_skips_is_named(opened: Opened, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prune_sparse.pruned

    def skipping(weights: Any, statistics: Any, config: Any, layer: int, names: Any) -> Any:
        return (weight.clone() for weight in weights) if layer == 2 else original(weights, statistics, config, layer, names)

    monkeypatch.setattr(prune_sparse, "pruned", skipping)
    for name in ("magnitude", "wanda", "sparsegpt"):
        refused(" in model.layers.2.self_attn.q_proj and 6 more; nothing was kept", name, parent, tmp_path, opened)


def test_a_layer_that_gptq_skips_is_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = quantize_gptq.linear_layers

    def skipping(module: nn.Module) -> dict[str, nn.Linear]:
        skipped = hasattr(module, "self_attn") and module.self_attn.layer_idx == 1
        return {} if skipped else original(module)

    monkeypatch.setattr(quantize_gptq, "linear_layers", skipping)
    monkeypatch.setattr(quantize_gptq.Statistics, "groups_sharing_sums", _without_layer_1(quantize_gptq.Statistics.groups_sharing_sums))
    refused("the files have plain weights in model.layers.1.self_attn.q_proj and 6 more", "gptq", parent, tmp_path)


def _without_layer_1(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, number: [] if number == 1 else original(self, number)


def test_a_layer_that_depth_pruning_changes_is_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prune_depth.drop_layers

    def changing(model: Any, kept: list[int]) -> None:
        original(model, kept)
        model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1

    monkeypatch.setattr(prune_depth, "drop_layers", changing)
    refused("the others to stay as they are; the files have other weights than the parent in model.layers.1.", "depth", parent, tmp_path)


def test_a_layer_that_training_leaves_out_is_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = retrain.train

    def freezing(model: Any, *arguments: Any) -> Any:
        model.model.layers[3].requires_grad_(False)
        return original(model, *arguments)

    monkeypatch.setattr(retrain, "train", freezing)
    for name in ("full", "lora"):
        refused("the parent's, bit for bit, in model.layers.3.self_attn.q_proj and 6 more", name, parent, tmp_path)


# A quantized head, and what else must stay


def test_a_head_that_is_quantized_too_is_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        quantize_rtn, "quantizable", lambda model: {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    )
    refused("packed weights inside the decoder layers alone; the files have packed ones in lm_head", "rtn", parent, tmp_path)


@pytest.mark.parametrize("name", ["rtn", "gptq", "wanda", "depth", "lora"])
def test_embeddings_that_change_are_named(name: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = contract.importlib.import_module(contract.method_of(*STEPS[name]).module)
    original = module.apply

    def changing(loaded: Loaded, config: Any, context: Context) -> StepResult:
        result: StepResult = original(loaded, config, context)
        result.model.get_input_embeddings().weight.data[7, 7] += 1
        return result

    monkeypatch.setattr(module, "apply", changing)
    refused("embeddings and output head to stay as they are; the files have other values than the parent in ", name, parent, tmp_path)


def test_adapters_that_change_a_norm_are_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = retrain.cast_back

    def changing(model: Any, *arguments: Any) -> Any:
        model.model.layers[2].input_layernorm.weight.data[0] = 3
        return original(model, *arguments)

    monkeypatch.setattr(retrain, "cast_back", changing)
    refused("nothing else to change; the files have other values in model.layers.2.input_layernorm.weight;", "lora", parent, tmp_path)


# A lost mask


@pytest.mark.parametrize("name", ["full", "lora", "forward-kl"])
def test_zeros_of_pruning_that_training_fills_are_counted(name: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step("wanda", parent, tmp_path / "pruned")
    kept = step(name, tmp_path / "pruned", tmp_path / "kept").record.counted
    assert kept.sparsity == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(master_weights, "pruned_zeros", lambda _: {})
    monkeypatch.setattr(retrain, "pruned_zeros", lambda _: {})
    refused("the zeros of pruning to stay; the files have ", name, tmp_path / "pruned", tmp_path)


def test_a_pattern_that_training_keeps_is_recorded(parent: Path, tmp_path: Path) -> None:
    pruned = step("sparsegpt", parent, tmp_path / "pruned")
    trained = step("lora", tmp_path / "pruned", tmp_path / "trained")
    assert [saved.record.counted.pattern for saved in (pruned, trained)] == ["2:4", "2:4"]


# Scales that are 1 everywhere, and codes that are all the same


def test_scales_of_1_everywhere_are_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        quantize_rtn, "symmetric_scales", lambda weight, _, size: torch.ones(len(weight), weight.shape[1] // size, dtype=weight.dtype)
    )
    large = make("llama")
    for parameter in large.model.model.layers.parameters():
        parameter.data *= 40  # so that codes differ
    save(large, parent)
    refused("the files have scales that are 1 everywhere in model.layers.0.self_attn.q_proj and 27 more", "rtn", parent, tmp_path)


def test_scales_of_1_in_one_layer_are_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = gptq_format.tensors_of
    made = []

    def once(rounded: Rounded, bits: int) -> dict[str, Tensor]:
        made.append(original(rounded, bits))
        return made[-1] | ({"scales": torch.ones_like(made[-1]["scales"])} if len(made) == 10 else {})

    monkeypatch.setattr(gptq_format, "tensors_of", once)
    refused("the files have scales that are 1 everywhere in model.layers.1.", "gptq", parent, tmp_path)


def test_codes_that_are_all_the_same_are_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = gptq_format.tensors_of
    monkeypatch.setattr(
        gptq_format, "tensors_of", lambda rounded, bits: original(rounded._replace(codes=torch.full_like(rounded.codes, 8)), bits)
    )
    refused("the files have codes that are all the same in model.layers.0.self_attn.q_proj and 27 more", "gptq", parent, tmp_path)


def test_awq_that_scales_nothing_is_told(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_awq, "divide_inputs", lambda *_: None)
    refused(
        "quantize awq: the recipe asks for inputs to be scaled by their activations; the files have scales of 1", "awq", parent, tmp_path
    )


def test_awq_that_does_not_apply_its_scales_is_told(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_awq, "divide_inputs", lambda *given: torch.ones_like(given[2]))
    refused("the files have the parent's norms, bit for bit, in model.layers.0.input_layernorm.weight and ", "awq", parent, tmp_path)


def test_awq_whose_search_finds_no_better_scale_is_right(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all inputs are equally large. What its search finds is in the record."""
    monkeypatch.setattr(quantize_awq.Statistics, "magnitude", lambda self, layer, name: torch.ones(len(self.gram(layer, name))))
    record = step("awq", parent, tmp_path / "made").record
    assert {exponent for layer in record.details["exponents"] for exponent in layer.values()} <= {0.0, None}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bits": 8}, "weights of 4 bits in groups of 32; the files have 8 bits a weight in model.layers.0.self_attn.q_proj and 27 more"),
        ({"group_size": 64}, "weights of 4 bits in groups of 32; the files have a scale for 64 weights in model.layers.0."),
    ],
)
def test_other_bits_or_groups_than_asked_are_told(
    wrong: dict[str, int], said: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((quantize_rtn, "rtn"), (quantize_gptq, "gptq")):
        original = module.apply
        monkeypatch.setattr(
            module, "apply", lambda loaded, config, context, run=original: run(loaded, config.model_copy(update=wrong), context)
        )
        refused(said, name, parent, tmp_path)


# Zeros that are too many


def test_more_zeros_than_asked_are_told(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prune_sparse.apply
    monkeypatch.setattr(prune_sparse, "apply", lambda *given: original(given[0], given[1].model_copy(update={"sparsity": 0.7}), given[2]))
    for name in ("magnitude", "wanda"):
        refused("of the decoder layers' linear layers; the files have a share of 0.", name, parent, tmp_path)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
def test_a_model_that_was_sparse_is_pruned_no_further_than_asked(
    name: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step("sparsegpt", parent, tmp_path / "sparse")
    again = step(name, tmp_path / "sparse", tmp_path / "again").record.counted
    assert again.sparsity == pytest.approx(0.5, abs=0.01)
    original = prune_sparse.pruned

    def more(*given: Any) -> Any:
        return (weight * (torch.rand(weight.shape) < 0.6) for weight in original(*given))

    monkeypatch.setattr(prune_sparse, "pruned", more)
    refused("of the decoder layers' linear layers; the files have a share of 0.7", name, tmp_path / "sparse", tmp_path)


# What is right


def test_zeros_that_were_there_and_weights_that_are_all_zero_are_right(tmp_path: Path) -> None:
    loaded = make("llama")
    layers = loaded.model.model.layers
    layers[0].mlp.up_proj.weight.data[::2] = 0
    layers[1].self_attn.q_proj.weight.data.zero_()
    save(loaded, tmp_path / "parent")
    for name in ("magnitude", "wanda", "sparsegpt", "rtn", "gptq", "full", "lora"):
        counted = step(name, tmp_path / "parent", tmp_path / name).record.counted
        assert counted.matrices == 28
        if name in ("rtn", "gptq"):
            assert [(alone.reason, alone.first) for alone in counted.left_alone if "zero" in alone.reason] == [
                ("all its weights are zero", "model.layers.1.self_attn.q_proj")
            ]


def test_training_that_was_there_already_is_right(parent: Path, tmp_path: Path) -> None:
    config = RetrainFull(method="full", tokens=1024, until="parent", optimizer=SHORT)
    done = run("retrain", config, load_folder(parent), Context(text(32, 32), make("llama"), parent=parent), tmp_path / "made")
    assert done.record.tokens_seen == 0
    assert done.record.counted.unchanged == 28


def test_what_is_left_alone_is_recorded_with_its_reason(parent: Path, tmp_path: Path) -> None:
    counted = step("rtn", parent, tmp_path / "made").record.counted
    assert (counted.matrices, counted.packed, counted.bits) == (28, 28, pytest.approx(4.5, abs=0.1))
    assert [tuple(alone.model_dump().values()) for alone in counted.left_alone] == [("it is the output head", 1, "lm_head")]
