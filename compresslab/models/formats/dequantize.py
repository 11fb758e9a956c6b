"""Packed weights as plain ones, for scoring: equal mathematics, and much faster than a packed kernel on a CPU."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.models.device import find_device, placement
from compresslab.models.formats import awq as awq_format
from compresslab.models.formats import gptq as gptq_format
from compresslab.models.load import Loaded, cast, load_folder, load_tokenizer, quiet

# Formats that are unpacked here, so that scoring does not wait for the library whose kernels run them.
OWN_READERS = ("gptq", "awq")
PACKED_TENSORS = ("qweight", "qzeros", "scales", "g_idx")


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """The `quantization_config` of a saved variant, `None` for plain weights."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config.get("quantization_config")


def kernel_name(folder: Path) -> str:
    """Which kernel runs when plain transformers loads the folder, in words for a table."""
    quantization = quantization_of(folder)
    if quantization is None:
        return "plain weights"
    if quantization["quant_method"] == "bitsandbytes":
        return "bitsandbytes LLM.int8()" if quantization.get("load_in_8bit") else "bitsandbytes 4-bit"
    if quantization["quant_method"] == "compressed-tensors":
        return "compressed-tensors, unpacked at the first use"
    if quantization["quant_method"] in OWN_READERS:
        return f"gptqmodel, {quantization['quant_method'].upper()} {quantization['bits']}-bit"
    return str(quantization["quant_method"])


def scored_as_stored(folder: Path) -> bool:
    """Whether scores must come from the weights as they are stored: plain ones, and LLM.int8(), which rounds activations too."""
    quantization = quantization_of(folder)
    return quantization is None or bool(quantization.get("load_in_8bit"))


def countable(folder: Path) -> bool:
    """Whether non-zero weights can be counted on the model in memory, packed or not, before its first use."""
    quantization = quantization_of(folder)
    return quantization is None or quantization["quant_method"] in ("bitsandbytes", "torchao")


def dequantized(folder: Path, loaded: Loaded) -> Loaded:
    """The same variant with plain weights; `loaded` itself where its weights are plain already.

    Packed weights are read from the files again: bitsandbytes repacks them in memory at their first use.
    """
    quantization = quantization_of(folder)
    if quantization is None:
        return loaded
    return Loaded(_plain_model(folder, quantization, loaded.model.device), loaded.tokenizer)


def _plain_model(folder: Path, quantization: dict[str, Any], device: torch.device) -> PreTrainedModel:
    if quantization["quant_method"] in OWN_READERS:
        return _from_checkpoint(folder, quantization, device)
    with quiet(), warnings.catch_warnings():
        if quantization["quant_method"] in ("bitsandbytes", "torchao"):
            packed = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **placement(device))
            return packed.dequantize().eval() if quantization["quant_method"] == "bitsandbytes" else _without_torchao(packed)
        # It warns that the folder's own settings win over all but `dequantize`, which is what is wanted.
        warnings.simplefilter("ignore", UserWarning)
        settings = CompressedTensorsConfig(dequantize=True)
        plain = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, quantization_config=settings, **placement(device)
        )
        return plain.eval()


def _without_torchao(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and hasattr(module.weight, "__tensor_flatten__"):
            module.weight = torch.nn.Parameter(module.weight.dequantize())
    del model.config.quantization_config
    return model.eval()


def _from_checkpoint(folder: Path, quantization: dict[str, Any], device: torch.device) -> PreTrainedModel:
    """A GPTQ or AWQ folder as a plain model, without the library whose kernels run it."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    packed = {name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")}
    for layer in packed:
        own = {name: tensors.pop(f"{layer}.{name}") for name in PACKED_TENSORS if f"{layer}.{name}" in tensors}
        if quantization["quant_method"] == "awq":
            if quantization.get("version", "gemm") != "gemm":
                raise UnsupportedModel(f"{folder}: AWQ of version {quantization['version']!r} is not read; take one of version 'gemm'")
            tensors[f"{layer}.weight"] = awq_format.weight_of(own)
        else:
            form = quantization.get("checkpoint_format") or "gptq"
            if form not in gptq_format.STORED_LESS or quantization.get("dynamic"):
                raise UnsupportedModel(
                    f"{folder}: GPTQ in the form {form!r}, or with bits by layer, is not read; take one in the form 'gptq'"
                )
            tensors[f"{layer}.weight"] = gptq_format.weight_of(own, quantization["bits"], form)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    del config.quantization_config
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with quiet():
        model, found = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=config.dtype, output_loading_info=True, **placement(device)
        )
    if missing := sorted(found["missing_keys"]):
        raise RunFailed(f"{folder}: its packed weights lack {missing[0]}, which config.json asks for; it cannot be scored")
    plain: PreTrainedModel = model.eval()
    return plain


def load_for_scoring(folder: Path, dtype: torch.dtype, device: str | None = None) -> tuple[Loaded, str]:
    """A saved variant ready to be scored in `dtype`, and whether its weights are "as stored" or "dequantized"."""
    quantization = quantization_of(folder)
    if quantization is None:
        return load_folder(folder, dtype, device), "as stored"
    if scored_as_stored(folder):
        loaded = load_folder(folder, device=device)
        return Loaded(cast(loaded.model, dtype), loaded.tokenizer), "as stored"
    return Loaded(cast(_plain_model(folder, quantization, find_device(device)), dtype), load_tokenizer(folder)), "dequantized"
