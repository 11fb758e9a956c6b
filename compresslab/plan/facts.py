"""What can be known of a model before it is loaded: its dimensions and its tokenizer, from its files or from package data."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import struct
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.recipe.amounts import Widths
from compresslab.recipe.source import Source

# transformers' names of the formats that keep weights packed in memory; others are unpacked as they are loaded.
PACKED_FORMATS = ("bitsandbytes", "gptq", "awq", "auto-round", "compressed-tensors", "hqq", "eetq", "aqlm", "quanto", "torchao")
LONGEST_HEADER = 100_000_000  # of a safetensors file; the format's own limit
# Norms and biases are a hundredth of a layer; where files hold more, it is something else (an image encoder).
LARGEST_OTHER_SHARE = 0.05
# Architectures whose config transformers refuses unless the number of query heads divides the hidden size (head_dim or not).
HEADS_DIVIDE = ("llama", "gemma2", "gemma3", "gemma3_text", "vaultgemma", "arcee", "cwm", "hyperclovax", "internlm3", "gpt_neox")


class Facts(NamedTuple):
    """Dimensions of a model.

    Attributes:
        mlp_parameters: of one layer. other_parameters: of one layer's norms and biases.
        groups: key and value heads. queries: query heads that share one. head: dimensions of a head.
        tied: the output head is the input embedding.
        divides: the number of query heads must divide `hidden`, or transformers does not load the model.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    mlp_parameters: int
    other_parameters: int
    groups: int
    queries: int
    head: int
    tied: bool
    divides: bool

    def without_layers(self, keep: int) -> Facts:
        """The same model with `keep` layers."""
        return self._replace(layers=keep, parameters=self.parameters - (self.layers - keep) * self.layer_parameters)

    def narrower(self, widths: Widths) -> Facts:
        """The same model with so many MLP neurons, key and value heads and hidden channels."""
        narrow = self._replace(
            intermediate=widths.neurons,
            groups=widths.groups,
            hidden=widths.hidden,
            mlp_parameters=self.mlp_parameters * widths.neurons * widths.hidden // (self.intermediate * self.hidden),
            other_parameters=self.other_parameters * widths.hidden // self.hidden,
        )
        return narrow._replace(parameters=self.parameters + narrow._by_dimensions - self._by_dimensions)

    def stored(self, parameters: int) -> Facts:
        """The same model with as many parameters as its files say; what the matrices leave of them is norms and biases."""
        other, rest = divmod(parameters - self._by_dimensions + self.layers * self.other_parameters, self.layers)
        known = rest == 0 and 0 <= other <= LARGEST_OTHER_SHARE * self.layer_parameters
        return self._replace(parameters=parameters, other_parameters=other if known else self.other_parameters)

    @property
    def widths(self) -> Widths:
        """What width pruning cuts."""
        return Widths(self.intermediate, self.groups, self.hidden)

    @property
    def attention(self) -> int:
        """Query heads times head dimension."""
        return self.groups * self.queries * self.head

    @property
    def layer_parameters(self) -> int:
        """Of one layer."""
        projections = 2 * self.hidden * (self.attention + self.groups * self.head)
        return self.mlp_parameters + projections + self.other_parameters

    @property
    def embedding_parameters(self) -> int:
        """Of the input embedding and, where it is a tensor of its own, of the output head."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def _by_dimensions(self) -> int:
        """All parameters, as the dimensions have it: the last norm, too."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden


def facts_of(source: Source) -> Facts | None:
    """Facts of a model; `None` where they cannot be known without the network.

    Of a Hub id they are known if it is in the local cache, or among the published models whose dimensions come with the package.
    """
    if source.kind == "offline":
        return _from_config(json.loads((resources.files("compresslab") / "data" / "offline_models.json").read_text())[source.name])
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else _published(source.name) if source.kind == "hub" else None
    facts = _from_config(config) if config else None
    if facts is None or folder is None or packed_by(source):
        return facts
    stored = _stored_parameters(folder)
    return facts.stored(stored) if stored else facts


def packed_by(source: Source) -> str:
    """The format in which a published model's weights are packed, or nothing. GGUF files are unpacked as they are loaded."""
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    quantization = config.get("quantization_config") if config else None
    if folder is not None and quantization is None and (folder / "quantize_config.json").is_file():
        return "gptq"  # auto-gptq kept its settings in a file of their own
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
        groups = int(text.get("num_key_value_heads") or heads)
        experts = next((int(text[k]) for k in ("num_local_experts", "num_experts", "n_routed_experts") if text.get(k)), 1)
        mlp = 3 * hidden * int(text.get("moe_intermediate_size") or width) * experts
        tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
        divides = text.get("model_type") in HEADS_DIVIDE
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    if min(hidden, layers, width, vocabulary, head, heads, groups) <= 0:
        return None
    facts = Facts(0, layers, hidden, width, vocabulary, mlp, 2 * hidden, groups, max(1, heads // groups), head, tied, divides)
    return facts._replace(parameters=facts._by_dimensions)


def _published(name: str) -> dict[str, Any] | None:
    """The dimensions of a published model by its Hub id, in the words of a config."""
    with (resources.files("compresslab") / "data" / "published_shapes.csv").open(encoding="utf-8") as file:
        rows = {row["model"].lower(): row for row in csv.DictReader(file)}
    row = rows.get(name.rpartition("/")[2].lower())
    if row is None:
        return None
    return {
        "model_type": row["architecture"],
        "num_hidden_layers": row["layers"],
        "hidden_size": row["hidden"],
        "intermediate_size": row["intermediate"],
        "num_attention_heads": row["heads"],
        "num_key_value_heads": row["kv_heads"],
        "head_dim": row["head_dim"],
        "vocab_size": row["vocabulary"],
        "tie_word_embeddings": row["tied"] == "1",
        "num_experts": int(row["experts"]),
    }


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
