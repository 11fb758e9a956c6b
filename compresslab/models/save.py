"""Writes a variant as a folder that transformers loads without compresslab, and checks that it does."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.errors import RunFailed, UnsupportedModel, out_of_memory
from compresslab.inputs import safetensors_header
from compresslab.models.computing import computing
from compresslab.models.device import find_device, placement, torch_dtype
from compresslab.models.formats.reader import method_name, quantization_in, quantization_of, reader_of, register_format
from compresslab.models.load import Loaded, is_tied, probe_logits, quiet
from compresslab.models.older_versions import state_for_older_versions
from compresslab.models.own_code import carry_code
from compresslab.models.streamed.digests import tensor_digests
from compresslab.recipe.model_folder import weights_of
from compresslab.recipe.stored_weights import loaded_files
from compresslab.records.compute import Compute

# Larger than the default, so that small models have one file, and below the largest file of a FAT file system.
SHARD_BYTES = 4 * 10**9
# Root mean square of a rounding difference, relative to the standard deviation of the logits; a few hundredths in bfloat16.
LARGEST_ROUNDING = 0.2
# For each linear layer by name, the tensors that replace its weight, by their names in the files.
PackedTensors = dict[str, dict[str, torch.Tensor]]
ORIGIN = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


class Packed(NamedTuple):
    """Packed weights that replace plain ones in the files, and the `quantization_config` of config.json."""

    tensors: PackedTensors
    settings: dict[str, Any]


def save(loaded: Loaded, folder: Path, packed: Packed | None = None) -> None:
    """Write weights (safetensors), config, generation config and tokenizer into `folder`.

    Args:
        packed: for a model with plain weights, the packed weights that the files contain instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.files is not None:
        _copy(loaded, folder)
        return
    if packed is not None:
        _save_packed(loaded, folder, packed)
        return
    with quiet():
        original_format = not reader_of(quantization_in(loaded.model)).names_as_stored
        loaded.model.save_pretrained(folder, max_shard_size=SHARD_BYTES, save_original_format=original_format)
        loaded.tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        _sort_metadata(file)
    _tidy(loaded, folder)


def _sort_metadata(file: Path) -> None:
    """Sort the metadata of a safetensors file (torchao writes one entry per tensor), since the library writes it in a random order."""
    with file.open("r+b") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
        if len(header.get("__metadata__", {})) > 1:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            assert len(ordered) <= length, "sorting does not change the length"
            stream.seek(8)
            stream.write(ordered.ljust(length))


def _copy(loaded: Loaded, folder: Path) -> None:
    """Copy the files of packed weights and the config, and save the tokenizer."""
    assert loaded.files is not None
    for file in weights_of(loaded.files):
        copy = folder / file.relative_to(loaded.files)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    for name in ("config.json", "generation_config.json"):
        if (loaded.files / name).is_file():
            shutil.copyfile(loaded.files / name, folder / name)
    if not is_tied(loaded.model):
        _state_untied(folder / "config.json")
    with quiet():
        loaded.tokenizer.save_pretrained(folder)
    _tidy(loaded, folder)


def _save_packed(loaded: Loaded, folder: Path, packed: Packed) -> None:
    weights = {name: tensor for name, tensor in loaded.model.state_dict().items() if name.removesuffix(".weight") not in packed.tensors}
    for name, tensors in packed.tensors.items():
        weights |= {f"{name}.{suffix}": tensor for suffix, tensor in tensors.items()}
    with quiet():
        loaded.model.save_pretrained(folder, max_shard_size=SHARD_BYTES, state_dict=weights, save_original_format=False)
        loaded.tokenizer.save_pretrained(folder)
    _add_packing(folder, packed)
    _tidy(loaded, folder)


def save_settings(loaded: Loaded, folder: Path, packed: Packed | None = None) -> None:
    """Write all that `save` writes, except weights: config, generation config and tokenizer."""
    with quiet(), tempfile.TemporaryDirectory(dir=folder) as scratch:
        loaded.model.save_pretrained(scratch, state_dict={}, save_original_format=False)
        for file in sorted(Path(scratch).glob("*.json")):
            file.rename(folder / file.name)
    with quiet():
        loaded.tokenizer.save_pretrained(folder)
    if packed is not None:
        _add_packing(folder, packed)
    _tidy(loaded, folder)


def _add_packing(folder: Path, packed: Packed) -> None:
    _state(folder / "config.json", "quantization_config", packed.settings)


def _state(config: Path, field: str, value: object) -> None:
    """Make a configuration state a value."""
    config.write_text(json.dumps({**json.loads(config.read_text()), field: value}))


def _state_untied(config: Path) -> None:
    """Make a configuration, and that of the text part in it, say that the output head is not tied to the embeddings."""
    content = json.loads(config.read_text())
    if isinstance(text := content.get("text_config"), dict):
        content["text_config"] = {**text, "tie_word_embeddings": False}
    config.write_text(json.dumps({**content, "tie_word_embeddings": False}))


def _tidy(loaded: Loaded, folder: Path) -> None:
    _remove_origin(folder)
    carry_code(loaded.model, loaded.tokenizer, folder)
    state_for_older_versions(folder)


def _remove_origin(folder: Path) -> None:
    """Remove where and how a model was loaded, so that equal weights have equal files on every machine."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in ORIGIN}
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _digests(model: PreTrainedModel, folder: Path) -> Iterator[dict[str, str]]:
    """The digests of a loaded model, and those of the weights in its files if its kernels repack them.

    A kernel for GPUs (gptqmodel's Marlin) has a layout of its own and does not return the plain weights.
    """
    yield tensor_digests(model)
    reader = reader_of(quantization_in(model))
    if reader.repacks_on_load:
        with contextlib.suppress(UnsupportedModel):
            yield tensor_digests(reader.plain_model(folder, model.device))


def reload_difference(
    folder: Path, expected: torch.Tensor, tensors: Mapping[str, str] | None = None, compute: Compute | None = None
) -> float:
    """Largest absolute difference of a probe logit between a saved folder and the model that was saved.

    It should run in a fresh process, where no patch or import of a step influences loading.

    Args:
        expected: `probe_logits` of the model in memory.
        tensors: its `tensor_digests`. If the folder's are equal, a difference can only come from rounding in matrix products. In bfloat16
            it depends on the address of a weight and is up to almost 1. The result is then 0, unless the difference is larger than any
            rounding. Plain weights must have equal digests: the probe does not read every row of an embedding. Packed ones need not, since
            a format may unpack otherwise than it packed.
        compute: dtype and backend of the logits; without it, the folder's own dtype.

    Raises:
        RunFailed: transformers does not load the folder, or finds other plain weights in it.
        UnsupportedModel: it cannot use packed weights of this architecture.
    """
    try:
        register_format(folder)
        with quiet():
            place = placement(find_device(compute and compute.device))
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False, **place
            ).eval()
    except Exception as error:  # transformers raises many types of errors
        if isinstance(error, AttributeError | ValueError):
            _refuse_packing(folder, error)
        raise RunFailed(f"the saved variant does not load in plain transformers: {type(error).__name__}: {error}") from error
    same = tensors is not None and any(tensors == found for found in _digests(model, folder))
    if tensors is not None and not same and quantization_in(model) is None and (names := _other_weights(tensors, model, folder)):
        raise RunFailed(
            f"the saved folder has other weights, as plain transformers loads it, than the model that was saved: {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        )
    try:
        logits = probe_logits(computing(model, torch_dtype(compute)) if compute else model)
    except (AttributeError, IndexError, RuntimeError) as error:
        _refuse_packing(folder, error)
        raise
    return 0.0 if same and is_rounding(logits, expected) else float((logits - expected).abs().max())


def _other_weights(tensors: Mapping[str, str], model: PreTrainedModel, folder: Path) -> list[str]:
    """The names of weights of a loaded folder that differ from those with the digests `tensors`.

    Buffers that are in no file do not count: a forward pass may change them, and those of a kind of layers go with its last layer.
    """
    found = tensor_digests(model)
    stored = model.state_dict().keys() | {name for file in loaded_files(folder) for name in safetensors_header(file)}
    return sorted(name for name in stored if tensors.get(name) != found.get(name))


def _refuse_packing(folder: Path, error: Exception) -> None:
    """Refuse packed weights with which transformers does not make an architecture or run it.

    Some architectures read the `weight` of linear layers, and packed ones have none.

    Raises:
        UnsupportedModel: the folder's weights are packed, and memory is not what failed.
    """
    packed = quantization_of(folder)
    if packed is not None and not out_of_memory(error):
        architecture = json.loads((folder / "config.json").read_text())["model_type"]
        raise UnsupportedModel(
            f"{architecture}: transformers does not compute with weights of this architecture that are packed by {method_name(packed)} "
            f"({type(error).__name__}: {error}); take another method"
        ) from error


def is_rounding(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether the logits of two models of equal weights differ no more than rounding explains."""
    return float((logits - expected).square().mean().sqrt()) <= LARGEST_ROUNDING * float(expected.std())
