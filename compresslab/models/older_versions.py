"""Settings of a saved folder as transformers 4 spells them, which vLLM, the converter of llama.cpp and others read, beside version 5.

Version 4 passes over what it does not know: a model is computed with the default base of its rotary embedding, and its tokenizer does not
load. transformers 5 reads both spellings, which say the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# What version 5 calls a tokenizer of the library tokenizers, and the name by which both versions know it.
NEW_CLASS, OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
# Fields of the rotary embedding that version 4 states beside its scaling, not in it.
BESIDE = ("rope_theta", "partial_rotary_factor")
# Its own names of them, by architecture.
NAMES = {"gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}}


def state_for_older_versions(folder: Path) -> None:
    """Add the older spelling to `config.json` and `tokenizer_config.json` of a folder, where they have it otherwise."""
    for name, spelled in (("config.json", _config), ("tokenizer_config.json", _tokenizer)):
        path = folder / name
        if path.is_file():
            path.write_text(json.dumps(spelled(json.loads(path.read_text())), indent=2, sort_keys=True) + "\n")


def _config(config: dict[str, Any]) -> dict[str, Any]:
    parts = {name: _config(part) for name, part in config.items() if name == "text_config" and isinstance(part, dict)}
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return {**config, **parts}
    if (whole := rope.get("full_attention")) is not None:
        kind = next((kind for kind in WINDOWED if str(config.get("model_type")).startswith(kind)), "")
        return {**(WINDOWED[kind](whole, rope.get("sliding_attention") or {}) if kind else {}), **config, **parts}
    own = NAMES.get(str(config.get("model_type")), {})
    return {**{own.get(name, name): value for name, value in _rope(rope).items()}, **config, **parts}


def _gemma3(whole: dict[str, Any], window: dict[str, Any]) -> dict[str, Any]:
    return {**_rope(whole), "rope_local_base_freq": window.get("rope_theta")}


def _olmo3(whole: dict[str, Any], window: dict[str, Any]) -> dict[str, Any]:
    """Version 4 has one base for all layers, and scales those without a window alone. What it cannot say is left out."""
    same = window.get("rope_theta") == whole.get("rope_theta") and window.get("rope_type", "default") == "default"
    return _rope(whole) if same else {}


# Architectures of version 4 whose layers with a window have a rotary embedding of their own, by how their names begin.
WINDOWED = {"gemma3": _gemma3, "olmo3": _olmo3}


def _rope(rope: dict[str, Any]) -> dict[str, Any]:
    """The fields of version 4 for one set of rotary parameters; none if they are one for each kind of layer."""
    beside = {name: rope[name] for name in BESIDE if name in rope}
    if not beside or rope.get("rope_type", "default") == "default":
        return beside
    return {**beside, "rope_scaling": {name: value for name, value in rope.items() if name not in BESIDE}}


def _tokenizer(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("tokenizer_class") == NEW_CLASS:
        settings = {**settings, "tokenizer_class": OLD_CLASS}
    # A list under this name is an error in version 4, and version 5 reads it under the older one.
    if isinstance(settings.get("extra_special_tokens"), list):
        settings = {**settings, "additional_special_tokens": settings["extra_special_tokens"]}
        del settings["extra_special_tokens"]
    return settings
