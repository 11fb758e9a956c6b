"""Methods of other packages are held to what they announce, and say what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from models.tiny import make

from compresslab.errors import RunFailed
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Format, Packing
from compresslab.methods.method import Method, Zeros
from compresslab.methods.settings import StepConfig
from compresslab.models.load import Loaded
from compresslab.models.save import Packed, PackedTensors, save
from compresslab.models.surgery.shortening import drop_layers
from compresslab.records import Counted
from compresslab.steps.outcome.check import Said, counted


class Settings(StepConfig):
    """Of all methods here."""

    method: Literal["own"] = "own"


def fewer_layers(_: Settings, model: Dimensions) -> Dimensions:
    return model.without_layers(3)


QUANTIZER = Method("quantize", "own", Settings, "own", format=Format("own"), packing=lambda _: Packing(8))
ROUNDER = Method("quantize", "own", Settings, "own")
PRUNER = Method("prune", "own", Settings, "own")
SHORTENER = Method("prune", "own", Settings, "own", leaves=fewer_layers)
DROPPER = Method("prune", "own", Settings, "own", zeros=lambda _: Zeros(0.25, "matrix"))
TRAINER = Method("retrain", "own", Settings, "own", "training", trains=True)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    save(make("llama"), tmp_path / "parent")
    return tmp_path / "parent"


def looked_at(entry: Method[Any], made: Path, parent: Path, **said: Any) -> Counted:
    return counted(entry, Settings(), made, parent, Said(**{"tokens_seen": 64, "details": {}, "left_alone": {}, **said}))


def packed(folder: Path, without: str = "nothing") -> Path:
    """A model whose linear layers are int8 rows, but those whose name has `without`; the output head, too."""
    loaded, tensors = make("llama"), PackedTensors()
    for name, layer in loaded.model.named_modules():
        if isinstance(layer, torch.nn.Linear) and without not in name:
            scale = layer.weight.data.float().abs().amax(1, keepdim=True) / 127
            tensors[name] = {"codes": (layer.weight.data.float() / scale).round().to(torch.int8), "scale": scale.half()}
    save(loaded, folder, Packed(tensors, {"quant_method": "own"}))
    return folder


def changed(folder: Path, layers: range) -> Path:
    """The parent's model with other values in some decoder layers."""
    loaded = make("llama")
    for number in layers:
        loaded.model.model.layers[number].mlp.up_proj.weight.data[0, 0] += 1
    save(loaded, folder)
    return folder


def test_a_quantizer_may_pack_the_head_and_name_what_it_leaves_alone(parent: Path, tmp_path: Path) -> None:
    made = packed(tmp_path / "made", without="down_proj")
    with pytest.raises(RunFailed, match=r"the files have plain weights in model.layers.0.mlp.down_proj and 3 more"):
        looked_at(QUANTIZER, made, parent)
    reasons = {f"model.layers.{number}.mlp.down_proj": "its inputs have outliers" for number in range(4)}
    found = looked_at(QUANTIZER, made, parent, left_alone=reasons)
    assert (found.matrices, found.packed) == (28, 24)
    assert [(alone.reason, alone.modules, alone.first) for alone in found.left_alone] == [
        ("its inputs have outliers", 4, "model.layers.0.mlp.down_proj")
    ]


def test_a_module_that_is_named_covers_all_in_it(parent: Path, tmp_path: Path) -> None:
    made = packed(tmp_path / "made", without="layers.2.")
    assert looked_at(QUANTIZER, made, parent, left_alone={"model.layers.2": "the first layers matter most"}).packed == 21


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (ROUNDER, "rounded weights in every decoder layer; the files have the parent's, bit for bit, in model.layers.0."),
        (TRAINER, "weights trained on 64 tokens; the files have the parent's, bit for bit, in model.layers.0."),
        (PRUNER, "weights to be dropped; the files have the parent's weights, bit for bit, in model.layers.0."),
        (SHORTENER, "the recipe asks for 3 layers; the files have 4;"),
        (DROPPER, "a share of 0.25 of zeros in each matrix of the decoder layers' linear layers; the files have a share of 0 in"),
    ],
)
def test_a_method_that_did_nothing_is_refused(entry: Method[Any], said: str, parent: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        looked_at(entry, parent, parent)
    assert said in str(caught.value)


def test_a_rounder_and_a_trainer_change_every_layer_that_they_do_not_excuse(parent: Path, tmp_path: Path) -> None:
    made = changed(tmp_path / "made", range(1, 4))
    for entry in (ROUNDER, TRAINER):
        with pytest.raises(RunFailed, match=r"in model.layers.0.self_attn.q_proj and 6 more"):
            looked_at(entry, made, parent)
        assert looked_at(entry, made, parent, left_alone={"model.layers.0": "it is frozen"}).unchanged == 25


def test_layers_that_were_announced_are_there(parent: Path, tmp_path: Path) -> None:
    loaded: Loaded = make("llama")
    drop_layers(loaded.model, [0, 2, 3])
    save(loaded, tmp_path / "made")
    assert looked_at(SHORTENER, tmp_path / "made", parent).matrices == 21
    narrow = Method("prune", "own", Settings, "own", leaves=lambda _, model: model._replace(hidden=48))
    with pytest.raises(RunFailed, match=r"48 hidden channels; the files have 64 in model.embed_tokens.weight"):
        looked_at(narrow, parent, parent)
    light = Method("prune", "own", Settings, "own", leaves=lambda _, model: model._replace(parameters=model.parameters // 2))
    with pytest.raises(RunFailed, match=r"asks for about .* parameters; the files have "):
        looked_at(light, parent, parent)


def test_without_the_parent_what_needs_no_comparison_is_checked(tmp_path: Path) -> None:
    made = packed(tmp_path / "made", without="down_proj")
    with pytest.raises(RunFailed, match=r"plain weights in model.layers.0.mlp.down_proj and 3 more"):
        counted(QUANTIZER, Settings(), made, None, Said(0, {}, {}))
    save(make("llama"), tmp_path / "plain")
    assert counted(TRAINER, Settings(), tmp_path / "plain", None, Said(64, {}, {})).unchanged is None
