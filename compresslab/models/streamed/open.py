"""Opens a folder as a model whose weights stay in its files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.models.anatomy import decoder_layers
from compresslab.models.device import find_device
from compresslab.models.formats.complete import check_complete
from compresslab.models.formats.reader import quantization_of
from compresslab.models.load import Loaded, cast, explained, load_folder, load_tokenizer, quiet
from compresslab.models.streamed.weights import Place, StoredWeights, looks_up_rows
from compresslab.recipe.model_folder import check_claims


def open_by_layers(folder: Path, dtype: torch.dtype | None = None, device: str | None = None) -> Loaded:
    """A folder of plain weights as a model of which one layer is in memory at a time, or all of it where that would not be exact.

    transformers makes the model, its buffers and its names: it loads the folder with all weights left on the disk. A model is loaded whole

    - if its weights are packed, or transformers merges several tensors of the files into one (fused experts);
    - if its config ties the embeddings and its files have both (transformers compares them when it loads them);
    - if it has no list of decoder layers, or matrices besides those, the embeddings and the output head (an image encoder), or an embedding
      that does more than to look up the rows of its input.

    Args:
        dtype: the compute dtype, as in `load_folder`.

    Raises:
        BadInput: the folder is damaged, or lacks a part of the model.
    """
    check_claims(folder)
    opened = _opened(folder, find_device(device)) if quantization_of(folder) is None else None
    if opened is None:
        return load_folder(folder, dtype, device)
    return opened._replace(model=cast(opened.model, dtype)) if dtype else opened


def _opened(folder: Path, device: torch.device) -> Loaded | None:
    from accelerate.hooks import remove_hook_from_submodules

    with explained(folder), quiet():
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                device_map={"": "disk"},
            )
        except ValueError as error:
            # transformers' own message where it would have to write converted tensors again.
            if "needed to be re-saved" in str(error):
                return None
            raise
    check_complete(str(folder), found)
    places = _places(model)
    remove_hook_from_submodules(model)
    del model.hf_device_map
    if not _streamable(model, places):
        return None
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    try:
        weights = StoredWeights(model, places, device)
    except ValueError:  # a dtype that only transformers reads
        return None
    return Loaded(model.eval(), load_tokenizer(folder), weights=weights)


def _places(model: PreTrainedModel) -> dict[str, Place]:
    """Where transformers reads each parameter that it has left on the disk."""
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    index: Mapping[str, Any] = {}
    for hook in hooks:
        weights = getattr(hook, "weights_map", None)
        if weights is not None:
            index = weights.dataset.index
            break
    return {
        name: Place(Path(index[name]["safetensors_file"]), index[name]["weight_name"])
        for name, _ in model.named_parameters()
        if name in index
    }


def _streamable(model: PreTrainedModel, places: Mapping[str, Place]) -> bool:
    """Whether every matrix of a model is in a decoder layer, an embedding or the output head, and stored as it is."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    ties = any(getattr(config, "tie_word_embeddings", False) for config in (model.config, model.config.get_text_config()))
    if ties and head.weight is not embedding.weight:
        return False
    with contextlib.suppress(UnsupportedModel):
        inside = {id(module) for module in decoder_layers(model).modules()}
        return not any(buffer.is_meta for buffer in model.buffers()) and all(
            name in places and _in_a_part(model, name, inside, (head, embedding)) for name, _ in model.named_parameters()
        )
    return False


def _in_a_part(model: PreTrainedModel, name: str, inside: set[int], ends: tuple[nn.Module, nn.Module]) -> bool:
    parameter, owner = model.get_parameter(name), model.get_submodule(name.rpartition(".")[0])
    return parameter.dim() < 2 or id(owner) in inside or owner in ends or looks_up_rows(owner)
