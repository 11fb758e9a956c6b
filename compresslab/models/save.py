"""Write a variant as a folder that plain transformers loads, and prove that it does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.quantization_config import QuantizationMethod

from compresslab.errors import RunFailed
from compresslab.models.device import placement
from compresslab.models.load import Loaded, probe_logits, quiet

# Larger shards than the default keep one file for everything a laptop runs, and stay below what a FAT disk takes.
SHARD = "4GB"
# Root mean square of a rounding difference over the standard deviation of the logits: a few hundredths in bfloat16.
LARGEST_ROUNDING = 0.2
ORIGIN = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


def save(loaded: Loaded, folder: Path) -> None:
    """Write weights (safetensors), config, generation config and tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        # transformers cannot undo the loading of packed bitsandbytes weights; their names in memory are those of the files.
        undo = getattr(loaded.model, "quantization_method", None) != QuantizationMethod.BITS_AND_BYTES
        loaded.model.save_pretrained(folder, max_shard_size=SHARD, save_original_format=undo)
        loaded.tokenizer.save_pretrained(folder)
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

    Take it before the first forward pass: bitsandbytes and compressed-tensors lay weights out anew at their first use.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def reload_difference(folder: Path, expected: torch.Tensor, tensors: str = "") -> float:
    """Largest absolute difference of a probe logit between a saved folder and the model that was saved.

    Meant to run in a fresh process, where nothing that a step patched or imported can help the folder to load.

    Args:
        expected: what `probe_logits` gave for the model in memory.
        tensors: its `tensors_digest`. If the folder's is the same, what is left of a difference is the rounding of a
            matrix product (which in bfloat16 depends on where in memory a weight lies, and comes to almost 1 here),
            and 0 is given back, unless the difference is larger than any rounding.

    Raises:
        RunFailed: plain transformers does not load the folder.
    """
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **placement()).eval()
    except Exception as error:  # whatever transformers raises, the folder is of no use to anybody
        raise RunFailed(f"the saved variant does not load in plain transformers: {type(error).__name__}: {error}") from error
    same = bool(tensors) and tensors_digest(model) == tensors
    difference = probe_logits(model) - expected
    if same and float(difference.square().mean().sqrt()) <= LARGEST_ROUNDING * float(expected.std()):
        return 0.0
    return float(difference.abs().max())
