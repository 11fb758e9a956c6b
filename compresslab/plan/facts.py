"""What can be known of a model before it is loaded: its dimensions, from its config or from package data."""

from __future__ import annotations

import json
import os
import struct
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.recipe.source import Source


class Facts(NamedTuple):
    """Dimensions of a model. `mlp_parameters` and `layer_parameters` are of one layer, norms left out."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    layer_parameters: int
    mlp_parameters: int
    tied: bool

    def without_layers(self, keep: int) -> Facts:
        """The same model with `keep` layers."""
        return self._replace(layers=keep, parameters=self.parameters - (self.layers - keep) * self.layer_parameters)

    def narrower(self, neurons: int) -> Facts:
        """The same model with `neurons` MLP neurons a layer."""
        lost = round(self.mlp_parameters * (1 - neurons / self.intermediate))
        return self._replace(
            intermediate=neurons,
            mlp_parameters=self.mlp_parameters - lost,
            layer_parameters=self.layer_parameters - lost,
            parameters=self.parameters - self.layers * lost,
        )


def facts_of(source: Source) -> Facts | None:
    """Facts of a model; `None` where they cannot be known without the network (a Hub id that is not in the local cache)."""
    config = _config(source)
    return None if config is None else _from_config(config)


def tokenizer_digest(source: Source) -> str | None:
    """Digest of a local model's tokenizer file, to tell two vocabularies apart; `None` where it cannot be known."""
    from compresslab.recipe.source import file_sha256

    folder = Path(source.name) if source.kind == "folder" else _snapshot(source) if source.kind == "hub" else None
    path = folder / "tokenizer.json" if folder else None
    return file_sha256(path) if path and path.is_file() else None


def _config(source: Source) -> dict[str, Any] | None:
    if source.kind == "offline":
        configs = json.loads((resources.files("compresslab") / "data" / "offline_models.json").read_text())
        found: dict[str, Any] = configs[source.name]
        return found
    folder = Path(source.name) if source.kind == "folder" else _snapshot(source)
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError:
        return None
    return config | {"_folder": str(folder)}


def _snapshot(source: Source) -> Path | None:
    """The folder of a Hub model in the local Hugging Face cache."""
    if source.kind != "hub":
        return None
    home = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    snapshots = Path(home) / f"models--{source.name.replace('/', '--')}" / "snapshots"
    folders = [snapshots / source.revision] if source.revision else sorted(snapshots.glob("*"))
    return next((folder for folder in folders if folder.is_dir()), None)


def _from_config(config: dict[str, Any]) -> Facts | None:
    text = config.get("text_config", config)
    try:
        hidden, layers, width, vocabulary = (int(text[k]) for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"))
        heads = int(text["num_attention_heads"])
    except (KeyError, TypeError, ValueError):
        return None
    head = int(text.get("head_dim") or hidden // heads)
    key_values = int(text.get("num_key_value_heads") or heads)
    experts = next((int(text[k]) for k in ("num_local_experts", "num_experts", "n_routed_experts") if text.get(k)), 1)
    mlp = 3 * hidden * int(text.get("moe_intermediate_size") or width) * experts
    layer = mlp + 2 * hidden * head * heads + 2 * hidden * head * key_values
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
    estimate = layers * (layer + 2 * hidden) + hidden * vocabulary * (1 if tied else 2) + hidden
    counted = _stored_parameters(Path(config["_folder"])) if "_folder" in config and "quantization_config" not in config else None
    return Facts(counted or estimate, layers, hidden, width, vocabulary, layer, mlp, tied)


def _stored_parameters(folder: Path) -> int | None:
    """Elements of all tensors in a folder's safetensors files, read from their headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        except (OSError, struct.error, json.JSONDecodeError, UnicodeDecodeError):
            return None
        for name, entry in header.items():
            if name != "__metadata__":
                size = 1
                for length in entry["shape"]:
                    size *= length
                total += size
    return total or None
