"""Folders of other tools that transformers does not load unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.files import atomic_write
from compresslab.inputs import LARGEST_CONFIG, read_json, reason
from compresslab.methods.gptq import AUTO_GPTQ_SETTINGS
from compresslab.pins import cache_folder
from compresslab.recipe.stored_weights import loaded_files

PLAIN_NAME = "model.safetensors"


def loadable(folder: Path) -> Path:
    """The folder itself, or for a folder of auto-gptq a folder of links to its files, with the names that transformers expects.

    auto-gptq stored the quantization settings in a separate file, and they are part of the weight file's name
    (`gptq_model-4bit-128g.safetensors`).
    """
    settings, config = folder / AUTO_GPTQ_SETTINGS, folder / "config.json"
    weights = loaded_files(folder)
    if not (settings.is_file() and config.is_file() and len(weights) == 1):
        return folder
    try:
        original_config, stored_settings = read_json(config, LARGEST_CONFIG), read_json(settings, LARGEST_CONFIG)
    except (OSError, ValueError) as error:
        raise BadInput(f"config.json or {settings.name} of {folder} cannot be read ({reason(error)}); download the model again") from error
    if not (isinstance(original_config, dict) and isinstance(stored_settings, dict)):
        raise BadInput(f"config.json or {settings.name} of {folder} is no JSON object; download the model again")
    if weights[0].name == PLAIN_NAME and "quantization_config" in original_config:
        return folder
    links = cache_folder() / "linked" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    links.mkdir(parents=True, exist_ok=True)
    for file in (file for file in folder.iterdir() if file != config):
        _link(links / (PLAIN_NAME if file == weights[0] else file.name), file.resolve())
    quantization = {"quant_method": "gptq", "checkpoint_format": "gptq", **stored_settings}
    atomic_write(links / "config.json", json.dumps({**original_config, "quantization_config": quantization}))
    return links


def _link(link: Path, file: Path) -> None:
    """Make a link under a temporary name and rename it, since another process may make the same link at the same time."""
    part = link.with_name(f".{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(file)
    part.replace(link)
