"""Write a variant as a folder that plain transformers loads, and prove that it does."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import QuantizationMethod

from compresslab.errors import RunFailed
from compresslab.models.device import placement
from compresslab.models.load import Loaded, probe_logits, quiet

# Larger shards than the default keep one file for everything a laptop runs, and stay below what a FAT disk takes.
SHARD = "4GB"
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


def reload_difference(folder: Path, expected: torch.Tensor) -> float:
    """Largest absolute difference of a probe logit between a saved folder and the model that was saved.

    Meant to run in a fresh process, where nothing that a step patched or imported can help the folder to load.

    Args:
        expected: what `probe_logits` gave for the model in memory.

    Raises:
        RunFailed: plain transformers does not load the folder.
    """
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, **placement()).eval()
    except Exception as error:  # whatever transformers raises, the folder is of no use to anybody
        raise RunFailed(f"the saved variant does not load in plain transformers: {type(error).__name__}: {error}") from error
    return float((probe_logits(model) - expected).abs().max())
