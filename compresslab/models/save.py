"""Write a variant as a folder that plain transformers loads, and prove that it does."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.errors import RunFailed
from compresslab.models.computing import computing
from compresslab.models.device import find_device, placement, torch_dtype
from compresslab.models.formats.reader import quantization_in, reader_of, register_format
from compresslab.models.load import Loaded, probe_logits, quiet
from compresslab.records.compute import Compute

# Larger shards than the default keep one file for everything a laptop runs, and stay below what a FAT disk takes.
SHARD = "4GB"
# Root mean square of a rounding difference over the standard deviation of the logits: a few hundredths in bfloat16.
LARGEST_ROUNDING = 0.2
ORIGIN = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


class Packed(NamedTuple):
    """Packed weights that stand in the files in place of plain ones.

    Attributes:
        tensors: for each linear layer by its name the tensors that replace its weight, by the names they have in the files.
        settings: the `quantization_config` of config.json.
    """

    tensors: dict[str, dict[str, torch.Tensor]]
    settings: dict[str, Any]


def save(loaded: Loaded, folder: Path, packed: Packed | None = None) -> None:
    """Write weights (safetensors), config, generation config and tokenizer into `folder`.

    Args:
        packed: of a model with plain weights, what the files hold instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.files is not None:
        _copy(loaded, folder)
        return
    if packed is not None:
        _save_packed(loaded, folder, packed)
        return
    with quiet():
        undo = not reader_of(quantization_in(loaded.model)).names_as_stored
        loaded.model.save_pretrained(folder, max_shard_size=SHARD, save_original_format=undo)
        loaded.tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        _sort_metadata(file)
    _forget_origin(folder)


def _sort_metadata(file: Path) -> None:
    """Put a safetensors file's remarks (torchao writes one a tensor) in order: the library leaves them in another one each time."""
    with file.open("r+b") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
        if len(header.get("__metadata__", {})) > 1:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            assert len(ordered) <= length, "the same entries in another order"
            stream.seek(8)
            stream.write(ordered.ljust(length))


def _copy(loaded: Loaded, folder: Path) -> None:
    """The files of packed weights as they are, and the config and the tokenizer as transformers understood them."""
    assert loaded.files is not None
    for file in sorted(loaded.files.glob("*.safetensors*")):
        shutil.copyfile(file, folder / file.name)
    for name in ("config.json", "generation_config.json"):
        if (loaded.files / name).is_file():
            shutil.copyfile(loaded.files / name, folder / name)
    with quiet():
        loaded.tokenizer.save_pretrained(folder)
    _forget_origin(folder)


def _save_packed(loaded: Loaded, folder: Path, packed: Packed) -> None:
    weights = {name: tensor for name, tensor in loaded.model.state_dict().items() if name.removesuffix(".weight") not in packed.tensors}
    for name, tensors in packed.tensors.items():
        weights |= {f"{name}.{suffix}": tensor for suffix, tensor in tensors.items()}
    with quiet():
        loaded.model.save_pretrained(folder, max_shard_size=SHARD, state_dict=weights, save_original_format=False)
        loaded.tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": packed.settings}))
    _forget_origin(folder)


def _forget_origin(folder: Path) -> None:
    """Drop where and how a model was loaded: the same weights must give the same bytes wherever they were made."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in ORIGIN}
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def tensors_digest(model: PreTrainedModel) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors of a model, those that no file holds (rotary frequencies) too.

    Of a layer that a kernel library has packed (gptqmodel) the plain weight counts that the kernel multiplies by, so that such a model and
    the plain one that it was made from are equal. Take it before the first forward pass: bitsandbytes and compressed-tensors lay weights
    out anew at their first use.
    """
    digest = hashlib.sha256()
    tensors = reader_of(quantization_in(model)).tensors(model)
    for name, tensor in sorted(inner for outer in tensors.items() for inner in _parts(*outer)):
        if isinstance(tensor, torch.Tensor):
            # A number alone (Gemma's scale of the embeddings) is used in the weights' dtype, whichever it is kept in.
            tensor = tensor.detach().to(model.dtype if tensor.is_floating_point() and tensor.dim() == 0 else tensor.dtype)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _parts(name: str, tensor: object) -> Iterator[tuple[str, object]]:
    """The plain tensors inside one of torchao's; any other tensor itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield f"{name}.{part}", getattr(tensor, part)


def reload_difference(folder: Path, expected: torch.Tensor, tensors: str = "", compute: Compute | None = None) -> float:
    """Largest absolute difference of a probe logit between a saved folder and the model that was saved.

    Meant to run in a fresh process, where nothing that a step patched or imported can help the folder to load.

    Args:
        expected: what `probe_logits` gave for the model in memory.
        tensors: its `tensors_digest`. If the folder's is the same, what is left of a difference is the rounding of a
            matrix product (which in bfloat16 depends on where in memory a weight lies, and comes to almost 1 here),
            and 0 is given back, unless the difference is larger than any rounding.
        compute: what the logits were computed in, and on what; the folder's own dtype without it.

    Raises:
        RunFailed: plain transformers does not load the folder.
    """
    try:
        register_format(folder)
        with quiet():
            place = placement(find_device(compute and compute.device))
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **place).eval()
    except Exception as error:  # whatever transformers raises, the folder is of no use to anybody
        raise RunFailed(f"the saved variant does not load in plain transformers: {type(error).__name__}: {error}") from error
    same = bool(tensors) and tensors_digest(model) == tensors
    difference = probe_logits(computing(model, torch_dtype(compute)) if compute else model) - expected
    if same and float(difference.square().mean().sqrt()) <= LARGEST_ROUNDING * float(expected.std()):
        return 0.0
    return float(difference.abs().max())
