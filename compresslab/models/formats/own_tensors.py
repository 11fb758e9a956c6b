"""Unpacks a folder of packed tensors to a plain model, without the library of its kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel

from compresslab.errors import RunFailed
from compresslab.models.device import placement
from compresslab.models.load import quiet
from compresslab.recipe.stored_weights import loaded_files


def unpacked_model(
    folder: Path, names: tuple[str, ...], weight_of: Callable[[dict[str, Tensor]], Tensor], device: torch.device
) -> PreTrainedModel:
    """The model of a folder with plain weights.

    Args:
        names: names of the tensors of a packed layer, after the layer's name; a layer with the first of them is packed.
        weight_of: the plain weight (outputs, inputs) of a packed layer's tensors.

    Raises:
        RunFailed: a weight is missing.
    """
    tensors: dict[str, Tensor] = {}
    for file in loaded_files(folder):
        tensors |= load_file(file)
    for layer in [name.removesuffix(f".{names[0]}") for name in tensors if name.endswith(f".{names[0]}")]:
        tensors[f"{layer}.weight"] = weight_of({name: tensors.pop(f"{layer}.{name}") for name in names if f"{layer}.{name}" in tensors})
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
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
