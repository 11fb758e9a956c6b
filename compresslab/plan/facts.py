"""What can be known of a model before it is loaded: its dimensions and its tokenizer, from its files or from package data."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.recipe.source import Source

# transformers' names of the formats that keep weights packed in memory; others are unpacked as they are loaded.
PACKED_FORMATS = ("bitsandbytes", "gptq", "awq", "auto-round", "compressed-tensors", "hqq", "eetq", "aqlm", "quanto")
LONGEST_HEADER = 100_000_000  # of a safetensors file; the format's own limit


class Facts(NamedTuple):
    """Dimensions of a model.

    Attributes:
        layer_parameters, mlp_parameters: of one layer, norms left out. attention: attention heads times head dimension.
        tied: the output head is the input embedding.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    layer_parameters: int
    mlp_parameters: int
    attention: int
    tied: bool

    def without_layers(self, keep: int) -> Facts:
        """The same model with `keep` layers."""
        lost = (self.layers - keep) * (self.layer_parameters + 2 * self.hidden)
        return self._replace(layers=keep, parameters=self.parameters - lost)

    def narrower(self, neurons: int) -> Facts:
        """The same model with `neurons` MLP neurons a layer."""
        lost = round(self.mlp_parameters * (1 - neurons / self.intermediate))
        return self._replace(
            intermediate=neurons,
            mlp_parameters=self.mlp_parameters - lost,
            layer_parameters=self.layer_parameters - lost,
            parameters=self.parameters - self.layers * lost,
        )

    @property
    def embedding_parameters(self) -> int:
        """Of the input embedding and, where it is a tensor of its own, of the output head."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)


def facts_of(source: Source) -> Facts | None:
    """Facts of a model; `None` where they cannot be known without the network (a Hub id that is not in the local cache)."""
    if source.kind == "offline":
        return _from_config(json.loads((resources.files("compresslab") / "data" / "offline_models.json").read_text())[source.name])
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    facts = _from_config(config) if config else None
    if facts is None or folder is None or config is None or "quantization_config" in config:
        return facts
    return facts._replace(parameters=_stored_parameters(folder) or facts.parameters)


def packed_by(source: Source) -> str:
    """The format in which a published model's weights are packed, or nothing. GGUF files are unpacked as they are loaded."""
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    quantization = config.get("quantization_config") if config else None
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return method if method in PACKED_FORMATS else ""


def vocabulary_digest(source: Source) -> str | None:
    """Digest of a local model's tokens and their ids, to tell two vocabularies apart; `None` where it cannot be known.

    Not of the file: the same tokenizer saved by another version of its library is another file.
    """
    folder = _folder(source)
    tokenizer = _read(folder / "tokenizer.json") if folder else None
    try:
        vocabulary = tokenizer["model"]["vocab"] if tokenizer else None
        if not vocabulary or not tokenizer:
            return None
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece: number for number, (piece, *_) in enumerate(vocabulary)}
        ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
        return hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()
    except (KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or `None` if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _folder(source: Source) -> Path | None:
    """The folder of a model that is here as a folder; a Hub model is, if it is in the local Hugging Face cache."""
    if source.kind == "folder":
        return Path(source.name)
    if source.kind != "hub":
        return None
    home = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    cached = Path(home) / f"models--{source.name.replace('/', '--')}"
    revision = source.revision or "main"
    named = cached / "refs" / revision  # a branch or a tag; holds the commit
    try:
        commit = named.read_text().strip() if named.is_file() else revision
    except (OSError, ValueError):
        return None
    folder = cached / "snapshots" / commit
    return folder if folder.is_dir() else None


def _from_config(config: dict[str, Any]) -> Facts | None:
    text = config.get("text_config", config)
    try:
        hidden, layers, width, vocabulary = (int(text[k]) for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"))
        heads = int(text["num_attention_heads"])
        head = int(text.get("head_dim") or hidden // heads)
        key_values = int(text.get("num_key_value_heads") or heads)
        experts = next((int(text[k]) for k in ("num_local_experts", "num_experts", "n_routed_experts") if text.get(k)), 1)
        mlp = 3 * hidden * int(text.get("moe_intermediate_size") or width) * experts
        tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    if min(hidden, layers, width, vocabulary, head, heads, key_values) <= 0:
        return None
    layer = mlp + 2 * hidden * head * heads + 2 * hidden * head * key_values
    parameters = layers * (layer + 2 * hidden) + hidden * vocabulary * (1 if tied else 2) + hidden
    return Facts(parameters, layers, hidden, width, vocabulary, layer, mlp, head * heads, tied)


def _stored_parameters(folder: Path) -> int | None:
    """Elements of all tensors in the files that transformers would load, read from their headers."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.is_file():
        files = [single]
    elif (listed := _read(index)) and isinstance(listed.get("weight_map"), dict):
        files = [folder / str(name) for name in sorted(set(listed["weight_map"].values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    try:
        return sum(map(_elements, files)) or None
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return None


def _elements(file: Path) -> int:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > LONGEST_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
