"""Files of the right shapes and sizes whose values are not those of the step are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, text
from safetensors.torch import load_file, save_file
from torch import Tensor

from compresslab.errors import RunFailed
from compresslab.methods.registry import method_of
from compresslab.models.load import Loaded, load_folder
from compresslab.models.save import save
from compresslab.models.surgery.shortening import drop_layers
from compresslab.steps.contract import Context, run
from compresslab.steps.outcome.check import Said, counted
from steps.methods import METHOD_CONFIGS

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
Tensors = dict[str, Tensor]
FILE = "model.safetensors"


def lively(name: str = "llama", **settings: Any) -> Loaded:
    """A model whose norms and biases differ from layer to layer, as those of trained models do."""
    loaded = make(name, **settings)
    generator = torch.Generator().manual_seed(1)
    for parameter in loaded.model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return loaded


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The model before a step, with biases."""
    save(lively("qwen2", tie_word_embeddings=True), tmp_path / "parent")
    return tmp_path / "parent"


def made(method: str, parent: Path) -> Path:
    """The folder of a step."""
    kind, config = METHOD_CONFIGS[method]
    folder = parent.parent / "made"
    run(kind, config, load_folder(parent), Context(text(4, 32), parent=parent), folder)
    return folder


def checked(method: str, folder: Path, parent: Path, **settings: Any) -> None:
    """The check of a step, by its settings or some others."""
    kind, config = METHOD_CONFIGS[method]
    counted(method_of(kind, config), config.model_copy(update=settings), folder, parent, Said(128, {}, {}))


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors of a folder's file."""
    save_file(change(load_file(folder / FILE)), folder / FILE, {"format": "pt"})


def swapped(tensors: Tensors) -> Tensors:
    """Layers 1 and 2 in each other's place."""
    names = {"layers.1.": "layers.2.", "layers.2.": "layers.1."}
    return {next((name.replace(*pair) for pair in names.items() if pair[0] in name), name): value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "method", ["magnitude", "wanda", "sparsegpt", "rtn", "gptq", "gptq 3 bits asymmetric", "bnb-nf4", "torchao-int8", "lora"]
)
def test_layers_in_each_others_place_are_refused(method: str, parent: Path) -> None:
    folder = made(method, parent)
    checked(method, folder, parent)
    changed(folder, swapped)
    with pytest.raises(RunFailed, match=r"nothing else to change; the files have other values in model\.layers\.1\..* and \d+ more"):
        checked(method, folder, parent)


@pytest.mark.parametrize("method", ["rtn", "gptq", "gptq 3 bits asymmetric", "awq"])
def test_packed_weights_of_another_layer_are_refused(method: str, parent: Path) -> None:
    folder = made(method, parent)

    def matrices(tensors: Tensors) -> Tensors:
        whole = swapped(tensors)
        return {name: whole[name] if ".up_proj." in name else value for name, value in tensors.items()}

    changed(folder, matrices)
    with pytest.raises(
        RunFailed, match=r"weights of which [45]\d% have the sign of the parent's in model\.layers\.1\.mlp\.up_proj and 1 more"
    ):
        checked(method, folder, parent)


def test_codes_in_another_order_are_refused(parent: Path) -> None:
    folder = made("gptq", parent)
    changed(folder, lambda tensors: {name: value.flip(0) if "qweight" in name else value for name, value in tensors.items()})
    with pytest.raises(RunFailed, match=r"have the sign of the parent's in model\.layers\.0\..* and 27 more"):
        checked("gptq", folder, parent)


@pytest.mark.parametrize(("method", "asked"), [("gptq", False), ("gptq 3 bits asymmetric", True)])
def test_a_grid_that_is_not_as_symmetric_as_asked_is_refused(method: str, asked: bool, parent: Path) -> None:
    folder = made(method, parent)
    checked(method, folder, parent)
    with pytest.raises(
        RunFailed, match=r"asks for a symmetric grid; the files have zero points" if asked else r"have one zero point for all"
    ):
        checked(method, folder, parent, symmetric=asked)


def test_zero_points_of_3_bits_are_all_the_same_in_a_symmetric_grid(parent: Path) -> None:
    kind, config = METHOD_CONFIGS["gptq"]
    run(kind, config.model_copy(update={"bits": 3}), load_folder(parent), Context(text(4, 32), parent=parent), parent.parent / "made")


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_a_mask_leaves_what_it_keeps(method: str, parent: Path) -> None:
    folder = made(method, parent)
    name = "model.layers.2.mlp.up_proj.weight"
    changed(folder, lambda tensors: tensors | {name: tensors[name] * 2})
    with pytest.raises(
        RunFailed, match=r"other values than the parent's in 4,\d+ weights that are not zero in model\.layers\.2\.mlp\.up_proj"
    ):
        checked(method, folder, parent)


def test_a_pattern_along_the_outputs_is_refused(parent: Path) -> None:
    folder = made("sparsegpt", parent)

    def turned(tensors: Tensors) -> Tensors:
        mask = torch.tensor([1, 0, 1, 0]).bool()
        before = load_file(parent / FILE)
        linear = {name: value for name, value in before.items() if "_proj.weight" in name}
        return tensors | {name: value * mask.repeat(len(value) // 4)[:, None] for name, value in linear.items()}

    changed(folder, turned)
    with pytest.raises(RunFailed, match=r"2:4 weights of the decoder layers' linear layers; the files have up to 4 of 4"):
        checked("sparsegpt", folder, parent)


@pytest.mark.parametrize("method", ["full", "lora", "forward-kl"])
def test_an_output_head_that_is_not_tied_any_more_is_refused(method: str, parent: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    save(lively("qwen2", tie_word_embeddings=False), folder)
    assert not json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    with pytest.raises(RunFailed, match=r"asks for a model of [\d,]+ parameters as before; the files have "):
        checked(method, folder, parent)


@pytest.mark.parametrize(
    ("method", "end"), [("gptq", "lm_head"), ("magnitude", "model.norm"), ("rtn", "model.embed_tokens"), ("depth", "lm_head")]
)
def test_ends_that_a_step_destroys_are_refused(method: str, end: str, tmp_path: Path) -> None:
    save(lively(tie_word_embeddings=False), tmp_path / "parent")
    folder = made(method, tmp_path / "parent")
    changed(folder, lambda tensors: {name: value * 0.5 if name.startswith(end) else value for name, value in tensors.items()})
    with pytest.raises(RunFailed, match=rf"to stay as they are; the files have other values than the parent in {end}\.weight"):
        checked(method, folder, tmp_path / "parent")


@pytest.mark.parametrize("method", ["magnitude", "depth"])
def test_an_output_head_that_pruning_adds_is_refused(method: str, parent: Path) -> None:
    folder = made(method, parent)
    changed(folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(
        RunFailed, match=r"asks for (a model of )?[\d,]+ parameters (outside the decoder layers )?as before; the files have"
    ):
        checked(method, folder, parent)


def test_a_layer_that_is_said_to_be_left_alone_is_the_parents(parent: Path) -> None:
    folder = made("rtn", parent)
    name = "model.layers.1.mlp.down_proj"

    def plain(tensors: Tensors) -> Tensors:
        others = {key: value for key, value in tensors.items() if not key.startswith(f"{name}.")}
        return others | {f"{name}.weight": load_file(parent / FILE)[f"{name}.weight"] * factor}

    kind, config = METHOD_CONFIGS["rtn"]
    said = Said(0, {}, {name: "its inputs have outliers"})
    for factor in (1, 2):
        changed(folder, plain)
        if factor == 1:
            counted(method_of(kind, config), config, folder, parent, said)
    with pytest.raises(RunFailed, match=rf"what it leaves alone to stay as it is; the files have other values than the parent in {name}"):
        counted(method_of(kind, config), config, folder, parent, said)


def test_layers_that_share_their_largest_matrix_are_told_apart(tmp_path: Path) -> None:
    loaded = lively()
    layers = loaded.model.model.layers
    for number in (1, 2, 3):  # as in models made of copies of layers that were then tuned in part
        layers[number].mlp.load_state_dict(layers[0].mlp.state_dict())
    save(loaded, tmp_path / "parent")
    drop_layers(loaded.model, [1, 3])
    folder = tmp_path / "made"
    save(loaded, folder)
    checked("depth", folder, tmp_path / "parent")
    changed(folder, lambda tensors: {name: value + 1 if "layers.1.self_attn.q_proj" in name else value for name, value in tensors.items()})
    with pytest.raises(RunFailed, match=r"other weights than the parent in model\.layers\.1\.self_attn\.q_proj\.weight"):
        checked("depth", folder, tmp_path / "parent")


@pytest.mark.parametrize(
    ("method", "said"), [("wanda", "0 zeros in a row of 64"), ("full", "the parent's, bit for bit,"), ("rtn", "plain weights")]
)
def test_a_shard_of_the_parent_that_the_index_names_is_refused(method: str, said: str, parent: Path) -> None:
    folder = made(method, parent)
    tensors, before = load_file(folder / FILE), load_file(parent / FILE)
    stale = {name: value for name, value in before.items() if ".layers.3." in name}
    kept = {name: value for name, value in tensors.items() if ".layers.3." not in name}
    (folder / FILE).unlink()
    shards = {"model-00001-of-00002.safetensors": kept, "model-00002-of-00002.safetensors": stale}
    for file, content in shards.items():
        save_file(content, folder / file, {"format": "pt"})
    # What a later save leaves beside them is not read.
    save_file(tensors, folder / "model-00003-of-00003.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, content in shards.items() for name in content}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RunFailed, match=rf"{said} in model\.layers\.3\..* and 6 more"):
        checked(method, folder, parent)
