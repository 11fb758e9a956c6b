"""Each format's reader and what the plan says of the format agree with the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compresslab.errors import BadInput, UnsupportedModel
from compresslab.methods.registry import METHODS, formats, method
from compresslab.models.counting.size import stored_tensors
from compresslab.models.formats import compressed_tensors, reader
from compresslab.models.formats.dequantize import countable, kernel_name, scored_as_stored
from compresslab.models.load import load_folder
from compresslab.recipe.steps import Step
from compresslab.steps.contract import Context, run
from models.tiny import THIRD_PARTY_WARNINGS, make, text

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
PACKING = [entry.name for entry in METHODS if entry.packs and entry.name != "torchao-int4"]  # which torchao packs on a GPU only


@pytest.mark.parametrize("name", PACKING)
def test_the_bits_that_a_plan_counts_on_are_those_in_the_files(name: str, tmp_path: Path) -> None:
    entry, config = method("quantize", name), Step.model_validate({"quantize": {"method": name}}).config
    loaded = make("llama")
    linear = {key: layer.weight.numel() for key, layer in loaded.model.named_modules() if isinstance(layer, torch.nn.Linear)}
    head = next(key for key, layer in loaded.model.named_modules() if layer is loaded.model.get_output_embeddings())
    weights = sum(count for key, count in linear.items() if key != head)
    run("quantize", config, loaded, Context(text(4, 32)), tmp_path)
    stored = sum(tensor.bytes for key, tensor in stored_tensors(tmp_path).items() if ".layers." in key and "norm" not in key)
    bits = entry.stored_bits(config)
    # Rows of a tiny model are short, so the data per row are a larger share than in the plan.
    assert bits == pytest.approx(8 * stored / weights, rel=0.1)


@pytest.mark.parametrize("known", formats(), ids=lambda known: known.name)
def test_every_format_has_a_reader(known: object) -> None:
    assert isinstance(reader.reader_of({"quant_method": known.name}), reader.Reader)


def folder_with(folder: Path, quantization: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    return folder


@pytest.mark.parametrize(
    ("quantization", "kernel", "as_stored", "in_memory"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes LLM.int8()", True, True),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit", False, True),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors, unpacked at the first use", False, False),
        ({"quant_method": "gptq", "bits": 3}, "gptqmodel, GPTQ 3-bit", False, False),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel, AWQ 4-bit", False, False),
        ({"quant_method": "compressed-tensors", "config_groups": 3}, "compressed-tensors, unpacked at the first use", False, False),
        ({"quant_method": "torchao"}, "torchao", False, True),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"input_activations": {"num_bits": 8}}}}, "compressed", True, False),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8DynamicActivationInt8WeightConfig"}}}, "torchao", True, True),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "torchao", False, True),
        ({"quant_method": "hqq"}, "hqq", False, False),
        ({"quant_method": "fp8"}, "fp8", False, False),
    ],
)
def test_what_a_folder_says_decides_how_it_is_read(
    quantization: dict[str, object], kernel: str, as_stored: bool, in_memory: bool, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, quantization)
    assert kernel_name(folder).startswith(kernel)
    assert scored_as_stored(folder) == as_stored
    assert countable(folder) == in_memory


def test_packed_weights_of_a_multimodal_models_text_part_are_seen(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}))
    assert reader.quantization_of(tmp_path) == {"quant_method": "gptq", "bits": 4}
    assert not scored_as_stored(tmp_path)
    model = make("llama").model
    model.config.quantization_config = {"quant_method": "gptq"}
    assert reader.quantization_in(model) == {"quant_method": "gptq"}


def test_a_configuration_that_names_no_method_keeps_none_in_memory() -> None:
    model = make("llama").model
    model.config.quantization_config = {"load_in_4bit": True}
    assert type(reader.reader_of(reader.quantization_in(model))).__name__ == "BitsAndBytesReader"


def test_layers_that_are_packed_in_different_ways_are_refused(tmp_path: Path) -> None:
    groups = {name: {"weights": {"num_bits": bits, "type": "int"}, "targets": ["Linear"]} for name, bits in (("a", 4), ("b", 8))}
    folder = folder_with(tmp_path, {"quant_method": "compressed-tensors", "config_groups": groups})
    with pytest.raises(UnsupportedModel, match="packed in 2 ways"):
        reader.reader_of({"quant_method": "compressed-tensors"}).plain_model(folder, torch.device("cpu"))


@pytest.mark.parametrize(
    "groups",
    [
        {"W8A8": ["Linear"]},
        {"a": {"weights": {"num_bits": 4, "observer": "minmax"}}, "b": {"weights": {"num_bits": 4, "observer": "mse"}}},
    ],
)
def test_groups_that_are_unpacked_alike_are_one_way(groups: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path, {"quant_method": "compressed-tensors", "config_groups": groups})
    assert not scored_as_stored(folder)
    model = make("llama").model
    monkeypatch.setattr(compressed_tensors.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    assert reader.reader_of({"quant_method": "compressed-tensors"}).plain_model(folder, torch.device("cpu")) is model


def test_unpacking_torchao_leaves_tied_weights_tied(tmp_path: Path) -> None:
    config = Step.model_validate({"quantize": {"method": "torchao-int8"}}).config
    run("quantize", config, make("llama-tied"), Context(), tmp_path / "model")
    plain = reader.reader_of({"quant_method": "torchao"}).plain_model(tmp_path / "model", torch.device("cpu"))
    assert plain.get_input_embeddings().weight is plain.get_output_embeddings().weight


@pytest.mark.parametrize("name", ["hqq", "fp8"])
def test_a_format_that_nobody_here_unpacks_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"quant_method": name})
    with pytest.raises(UnsupportedModel, match=f"packed by {name} are not unpacked here"):
        reader.reader_of({"quant_method": name}).plain_model(folder, torch.device("cpu"))


@pytest.mark.parametrize(
    ("written", "said"),
    [("{nope", "cannot be read"), ("[]", "is no JSON object"), ('{"quantization_config": 3}', "does not load as a causal")],
)
def test_a_config_that_is_none_is_one_message(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(written)
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=said):
        load_folder(tmp_path)
