"""Reads the dimensions, the format and the vocabulary of a model before it is loaded, from its files or from package data."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, LARGEST_TOKENIZER, read_json, reason, safetensors_header
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Format, Quantization, stated_quantization
from compresslab.methods.registry import format_of, formats
from compresslab.recipe.model_config import (
    architecture_problem,
    code_problem,
    dimension_problem,
    own_tokenizers,
    positions_of,
    text_part,
    text_sizes,
)
from compresslab.recipe.model_folder import ADAPTER, VOCABULARY_FILES, adapter_refused
from compresslab.recipe.source import Source
from compresslab.recipe.stored_weights import check_stored, has_position_table, layer_of, loaded_files

# The tokens of a tokenizer's configuration that are put into texts.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token")
# Tokenizers of bytes and characters, which read no file.
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
# Architectures whose config transformers refuses unless the number of query heads divides the hidden size, even with a head_dim.
HEADS_DIVIDE = ("llama", "gemma2", "gemma3", "gemma3_text", "vaultgemma", "arcee", "cwm", "hyperclovax", "internlm3", "gpt_neox")


def dimensions_of(source: Source) -> Dimensions | None:
    """Dimensions of a model; `None` if they cannot be known without the network.

    Those of a Hub id are known if the model is in the local cache, or among the published models whose dimensions are package data.
    """
    if source.kind == "offline":
        return _from_config(json.loads((resources.files("compresslab") / "data" / "offline_models.json").read_text())[source.name])
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else _published(source.name) if source.kind == "hub" else None
    dimensions = _from_config(config) if config else None
    if dimensions is None or folder is None or packed_by(source):
        return dimensions
    stored = _stored_parameters(folder, dimensions)
    return dimensions.with_stored_parameters(*stored) if stored else dimensions


def packed_by(source: Source) -> str:
    """The name of the format in which a model's weights are packed, known here or not; empty if they are plain or nothing is known."""
    if known := format_of_source(source):
        return known.name
    return str((_quantization(source) or {}).get("quant_method") or "")


def format_of_source(source: Source) -> Format | None:
    """The format in which a local model's weights are packed; `None` for plain weights, unknown formats, GGUF files and remote models."""
    if (quantization := _quantization(source)) is not None:
        return format_of(quantization)
    folder = _folder(source)
    return next((known for known in formats() if folder and any((folder / name).is_file() for name in known.files)), None)


def possible_formats(source: Source) -> tuple[Format, ...]:
    """The known formats that a model may have: of a Hub model all of them, whether it is in the local cache or not."""
    if source.kind == "hub":
        return formats()
    known = format_of_source(source)
    return (known,) if known else ()


def _quantization(source: Source) -> Quantization | None:
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    return stated_quantization(config) if config else None


def check_cached(source: Source) -> None:
    """Refuse a Hub model if the local cache has it and it is an adapter. Raises BadInput."""
    folder = _folder(source) if source.kind == "hub" else None
    if folder and (folder / ADAPTER).exists():
        raise adapter_refused(source.name)


# Architectures that do not keep documents apart, as the trial of a loaded model finds (`models.documents.boundaries`).
WITH_STATE = frozenset(
    {
        *("bamba", "falcon_h1", "falcon_mamba", "jamba", "kimi_linear", "mamba", "mamba2", "nemotron_h", "olmo_hybrid", "qwen3_next"),
        *("recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2"),
    }
)
WITHOUT_RESTARTS = frozenset({"biogpt", "bloom", "mpt", "opt", "xglm"})
# Kinds of layers that keep a state. All other kinds are attention, or an MLP alone.
STATE_LAYERS = frozenset(
    {
        *("conv", "gated_delta_net", "hybrid", "hybrid_sliding", "kda", "linear_attention", "lightning_attention", "mamba", "mamba2"),
        *("recurrent", "rwkv", "slstm", "mlstm", "ssm"),
    }
)


def check_code(source: Source, trusted: bool) -> None:
    """Refuse a local model of which transformers makes no causal language model, with its own code or without. Raises BadInput.

    Args:
        trusted: whether the recipe trusts its code.
    """
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    tokenizer = _read(folder / "tokenizer_config.json") if folder else None
    if config is None:
        return
    if problem := code_problem(source.name, config, tokenizer or {}, trusted) or architecture_problem(source.name, config):
        raise BadInput(problem)


def check_weights(source: Source) -> None:
    """Refuse a model's folder whose weights are not those of its configuration. Raises BadInput like `check_stored`."""
    config = _read(Path(source.name) / "config.json") if source.kind == "folder" else None
    if config is not None and not dimension_problem(config):
        check_stored(Path(source.name), config)


def check_tokenizer_files(source: Source) -> None:
    """Refuse a model's folder without a tokenizer, or with a `tokenizer.json` that is none. Raises BadInput."""
    if source.kind != "folder":
        return
    folder = Path(source.name)
    path = folder / "tokenizer.json"
    if path.exists():
        try:
            content = read_json(path, LARGEST_TOKENIZER)
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} cannot be read as a tokenizer ({reason(error)}); download or save it again") from error
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise BadInput(f"{path} is no tokenizer: it has no model; download or save it again")
        return
    config, settings = (_read(folder / name) or {} for name in ("config.json", "tokenizer_config.json"))
    if settings.get("tokenizer_class") in WITHOUT_VOCABULARY or own_tokenizers(settings) or isinstance(config.get("auto_map"), dict):
        return  # own code may make a tokenizer of anything
    if not any(fnmatch(path.name, form) for path in folder.iterdir() for form in VOCABULARY_FILES):
        raise BadInput(
            f"the folder {folder} has no tokenizer: neither tokenizer.json nor another vocabulary, such as tokenizer.model; copy the files "
            "of the model's tokenizer into it"
        )


class Positions(NamedTuple):
    """The number of positions of a model, and whether it looks them up in a table, so that it computes no more of them."""

    number: int
    table: bool


def positions_known(source: Source) -> Positions | None:
    """The positions of a local model; `None` if they cannot be known."""
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    count = positions_of(config) if config else None
    if folder is None or count is None:
        return None
    try:
        names = [name for file in loaded_files(folder) for name in safetensors_header(file)]
    except (OSError, ValueError, BadInput):
        return None
    return Positions(count, has_position_table(config or {}, names))


def crosses_documents(source: Source) -> str:
    """Why a local model cannot keep the documents of a sequence apart; empty if it can, or if nobody knows before it is loaded."""
    folder = _folder(source)
    config = text_part(_read(folder / "config.json") or {}) if folder else {}
    kind, kinds = config.get("model_type"), config.get("layer_types")
    if kind in WITH_STATE:
        return f"{kind} carries a state from one document into the next"
    if kind in WITHOUT_RESTARTS:
        return f"the attention of {kind} reads no restarting positions, so it reaches from one document into the next"
    if isinstance(kinds, list) and (other := sorted({str(one) for one in kinds} & STATE_LAYERS)):
        return f"{source.name} has layers of kind {', '.join(other)}, which carry a state from one document into the next"
    return ""


def architecture_of(source: Source) -> str:
    """The `model_type` of a local model's text part; empty if it is not known."""
    folder = _folder(source)
    config = text_part(_read(folder / "config.json") or {}) if folder else {}
    return str(config.get("model_type") or "") if isinstance(config, Mapping) else ""


def check_tokens(source: Source) -> None:
    """Refuse a local model whose tokenizer makes ids for which it has no embedding.

    A special token that is no end, beginning or stand-in for unknown text, and that the tokenizer puts around no text, may be beyond the
    embeddings, since no text has it: Gemma 3's for images, and padding that was added, which nothing here embeds.

    Raises:
        BadInput: it does; the message names the first such token.
    """
    folder = _folder(source)
    config = _read(folder / "config.json") if folder else None
    rows = text_part(config).get("vocab_size") if config and not dimension_problem(config) else None
    tokenizer = _read(folder / "tokenizer.json", LARGEST_TOKENIZER) if folder and isinstance(rows, int) else None
    if folder is None or tokenizer is None or not isinstance(rows, int):
        return
    settings = _read(folder / "tokenizer_config.json") or {}
    named = {token.get("content") if isinstance(token, dict) else token for token in map(settings.get, NAMED_TOKENS)}
    try:
        ids = _ids(tokenizer)
        named |= set(_put_before_texts(tokenizer))
        unused = {token["content"] for token in tokenizer.get("added_tokens") or () if token.get("special")} - named
        beyond = sorted((number, token) for token, number in ids.items() if number >= rows and token not in unused)
    except (AttributeError, KeyError, TypeError, ValueError):
        return  # loading it explains what is damaged
    if beyond:
        number, token = beyond[0]
        raise BadInput(
            f"the tokenizer of {folder} has the token {token[:60]!r} with the id {number}, and the model has {rows:,} embeddings "
            f"(0 to {rows - 1}); resize them with `model.resize_token_embeddings(len(tokenizer))` and save it, or take the token out"
        )


def _put_before_texts(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """The special tokens that a `tokenizer.json` puts around a text itself."""
    processor = tokenizer.get("post_processor") or {}
    for one in (processor, *(processor.get("processors") or ())):
        for piece in one.get("single") or ():
            if "SpecialToken" in piece:
                yield piece["SpecialToken"]["id"]


def vocabulary_digest(source: Source) -> str | None:
    """Digest of a local model's tokens and their ids, to compare vocabularies; `None` if it cannot be known.

    It is no digest of the file, since versions of the tokenizers library write the same tokenizer differently.
    """
    folder = _folder(source)
    tokenizer = _read(folder / "tokenizer.json", LARGEST_TOKENIZER) if folder else None
    try:
        ids = _ids(tokenizer) if tokenizer else None
        return hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest() if ids else None
    except (KeyError, TypeError, ValueError):
        return None


def _ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The id of each token in a `tokenizer.json`; empty if it has no vocabulary."""
    vocabulary = tokenizer["model"]["vocab"]
    if not vocabulary:
        return {}
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece: number for number, (piece, *_) in enumerate(vocabulary)}
    return ids | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}


def _read(path: Path, limit: int = LARGEST_CONFIG) -> dict[str, Any] | None:
    """The JSON object in a file of at most `limit` bytes; `None` if there is none."""
    try:
        content = read_json(path, limit)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _folder(source: Source) -> Path | None:
    """The folder of a local model, for a Hub model the one in the local Hugging Face cache; `None` if there is none."""
    if source.kind == "folder":
        return Path(source.name)
    if source.kind != "hub":
        return None
    home = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    cached = Path(home) / f"models--{source.name.replace('/', '--')}"
    revision = source.revision or "main"
    named = cached / "refs" / revision  # the file of a branch or a tag, which contains the commit
    try:
        commit = named.read_text().strip() if named.is_file() else revision
    except (OSError, ValueError):
        return None
    folder = cached / "snapshots" / commit
    return folder if folder.is_dir() else None


def _from_config(config: dict[str, Any]) -> Dimensions | None:
    text = text_part(config)
    if dimension_problem(config):
        return None
    sizes = text_sizes(text.get)
    # A model without attention has no dimensions that steps cut.
    if sizes is None or not sizes.heads:
        return None
    hidden, layers, vocabulary, width, heads, groups, head = sizes
    experts = next((text[k] for k in ("num_local_experts", "num_experts", "n_routed_experts") if text.get(k)), 1)
    expert = text.get("moe_intermediate_size") or width
    # Some architectures state the width of each layer, and dimensions have one.
    if not (isinstance(expert, int) and width > 0 and head > 0):
        return None
    mlp = 3 * hidden * expert * experts
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
    divides = text.get("model_type") in HEADS_DIVIDE
    dimensions = Dimensions(0, layers, hidden, width, vocabulary, mlp, 2 * hidden, groups, max(1, heads // groups), head, tied, divides)
    return dimensions._replace(parameters=dimensions.computed_parameters)


def _published(name: str) -> dict[str, Any] | None:
    """The dimensions of a published model by its Hub id, as fields of a config."""
    with (resources.files("compresslab") / "data" / "published_shapes.csv").open(encoding="utf-8") as file:
        rows = {row["model"].lower(): row for row in csv.DictReader(file)}
    row = rows.get(name.rpartition("/")[2].lower())
    if row is None:
        return None
    columns = {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden",
        "intermediate_size": "intermediate",
        "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads",
        "head_dim": "head_dim",
        "vocab_size": "vocabulary",
        "num_experts": "experts",
    }
    numbers = {field: int(row[column]) for field, column in columns.items()}
    return {"model_type": row["architecture"], "tie_word_embeddings": row["tied"] == "1", **numbers}


def _stored_parameters(folder: Path, dimensions: Dimensions) -> tuple[int, int | None] | None:
    """Number of elements of all tensors that transformers loads, and of those of one decoder layer if all have as many.

    Tensors of layers that the configuration does not have are not loaded.
    """
    try:
        elements = {name: count for file in loaded_files(folder) for name, count in _elements(file)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadInput):
        return None
    layers = dict.fromkeys(range(dimensions.layers), 0)
    total = 0
    for name, count in elements.items():
        number = layer_of(name)
        if number is None or number < dimensions.layers:
            total += count
            layers |= {} if number is None else {number: layers[number] + count}
    alike = set(layers.values())
    return (total, (alike.pop() or None) if len(alike) == 1 else None) if total else None


def _elements(file: Path) -> Iterator[tuple[str, int]]:
    for name, entry in safetensors_header(file).items():
        if not all(isinstance(size, int) for size in entry["shape"]):
            raise ValueError("a shape is no list of sizes")  # the product of a list and a number is a list, of any length
        yield name, math.prod(entry["shape"])
