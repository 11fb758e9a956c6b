"""Whether a model's folder is what a saved copy of it would be, by its files alone. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, read_json, safetensors_header
from compresslab.methods.format import stated_quantization
from compresslab.methods.registry import formats
from compresslab.recipe.model_checks import WEIGHTS
from compresslab.recipe.model_config import text_part, text_sizes
from compresslab.recipe.model_folder import weights_of
from compresslab.records.compute import Dtype

# safetensors' names of floating-point dtypes of 16 bits or more, by those of torch.
NAMES: dict[Dtype, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
WIDE = {*NAMES.values(), "F64"}
# A tensor of a decoder layer in the files of causal language models. The names before the list are those of the text model alone.
LAYER = re.compile(
    r"(?:(?:model|transformer|language_model|text_model|decoder|backbone|gpt_neox|rwkv|biogpt)\.)*(?:layers|h|blocks)\.(\d+)\."
)
# What may stand before the name of a tensor that is in no decoder layer.
BEFORE = re.compile(r"(?:(?:model|transformer|language_model|text_model|decoder|backbone|gpt_neox|rwkv|biogpt)\.)*")
# A table with a row for each position, by the ends of its names in GPT-2, OPT, XGLM, BioGPT, GPT-BigCode and the first GPT.
POSITION_TABLES = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight", "positions_embed.weight")
# Architectures whose positions are in a table that they compute, so that it is in no file.
COMPUTED_POSITIONS = frozenset({"codegen", "ctrl", "gptj", "mpt"})
# Tables with a row for each token, by their names in the text model.
TOKEN_TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
# Architectures whose configurations count the layers in their files otherwise, and whose table has rows for other tokens.
OTHER_LAYERS, OTHER_ROWS = frozenset({"longcat_flash"}), frozenset({"mllama", "mllama_text_model"})
# Output heads in files, by the ends of their names.
HEADS = ("lm_head.weight", "embed_out.weight")


def loaded_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads, and no other ones that lie beside them.

    Raises:
        BadInput: the folder cannot be read, its index is damaged, or a file that is named is missing.
    """
    return [path for path in weights_of(folder) if path.name.endswith(WEIGHTS)]


def layer_of(name: str) -> int | None:
    """The number of the decoder layer of the text model to which a tensor in a file belongs; `None` for what is in none."""
    found = LAYER.match(name)
    return int(found[1]) if found else None


class Location(NamedTuple):
    """Where a tensor or a module is in a model, whatever stands before its name in files or in memory.

    Attributes:
        layer: the number of its decoder layer, `None` outside. name: its name in the layer, or in the model.
    """

    layer: int | None
    name: str


def location_of(name: str, inside: str = "") -> Location:
    """The location of a tensor or a module.

    Args:
        inside: what stands before the number of a layer in memory, such as "model.layers.".
    """
    number, _, rest = name.removeprefix(inside).partition(".")
    if inside and name.startswith(inside) and number.isdigit():
        return Location(int(number), rest)
    found = LAYER.match(name)
    return Location(int(found[1]), name[found.end() :]) if found else Location(None, BEFORE.sub("", name, count=1))


def has_position_table(config: Mapping[str, object], names: Iterable[str]) -> bool:
    """Whether a model looks its positions up in a table, so that it computes no more of them.

    Args:
        config: its `config.json`. names: those of its parameters.
    """
    if text_part(config).get("model_type") in COMPUTED_POSITIONS:
        return True
    return any(name.endswith(POSITION_TABLES) and layer_of(name) is None for name in names)


def check_stored(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose weights are not those of its configuration, as far as the headers of its files tell.

    Raises:
        BadInput: layers are missing, the embeddings have other rows than the vocabulary, weights are stored as integers or in 8 bits and
            the configuration states no quantization, or the folder is refused like by `loaded_files`.
    """
    tensors = {name: entry for path in loaded_files(folder) for name, entry in safetensors_header(path).items()}
    text = text_part(config)
    kind, sizes = text.get("model_type"), text_sizes(text.get)
    numbers = {layer_of(name) for name in tensors} - {None}
    counted = bool(numbers) and kind not in OTHER_LAYERS
    if sizes is not None and counted and (missing := sorted(set(range(sizes.layers)) - numbers)):
        raise BadInput(
            f"{folder}: config.json states {sizes.layers} layers, and the weights have none of number {missing[0]} (counted from 0); "
            "the configuration is not that of these weights, or files are missing: download or save the model again"
        )
    if packed := next((name for name, entry in tensors.items() if _is_packed(name, entry)), ""):
        if stated_quantization(dict(config)) is None and not _names_format(folder):
            raise BadInput(
                f"{folder}: {packed} is stored as {tensors[packed]['dtype']}, and config.json states no quantization_config, so its scale "
                "is not known; download the model again with its own config.json"
            )
        return
    for name, entry in tensors.items():
        rows = next(iter(_shape(entry)), 0)
        if sizes is not None and kind not in OTHER_ROWS and location_of(name) in _TABLES and rows != sizes.vocabulary:
            raise BadInput(
                f"{folder}: {name} has {rows:,} rows, and config.json states a vocab_size of {sizes.vocabulary:,}; set it to the rows of "
                "the weights, or download or save the model again"
            )


_TABLES = frozenset(Location(None, name) for name in TOKEN_TABLES)


def _is_packed(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a tensor is a weight of a decoder layer in integers, or in floating-point numbers of 8 bits or fewer."""
    return "weight" in name and len(_shape(entry)) > 1 and layer_of(name) is not None and entry.get("dtype") not in WIDE


def _shape(entry: Mapping[str, Any]) -> list[Any]:
    """The shape in a header; of none, which is refused where tensors are read, that of a scalar."""
    shape = entry.get("shape")
    return shape if isinstance(shape, list) else []


def _names_format(folder: Path) -> bool:
    return any((folder / name).is_file() for known in formats() for name in known.files)


def plainly_stored(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    """Whether a folder has plain safetensors in this dtype, a tokenizer, and no code of its own.

    A folder with an output head in its files is none, unless the config says that it is not tied to the embeddings. It may be a copy
    of the embeddings that transformers does not save again.

    Args:
        files: those that a loader may read, by name.
    """
    try:
        return _plainly_stored(folder, files, dtype)
    except (OSError, ValueError, KeyError, TypeError, BadInput):  # loading it explains what is damaged
        return False


def _plainly_stored(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    if "tokenizer.json" not in files:
        return False
    loaded = loaded_files(folder)
    config = read_json(folder / "config.json", LARGEST_CONFIG)
    if not isinstance(config, dict) or config.get("auto_map") is not None or stated_quantization(config) is not None:
        return False
    stored = {name: entry for path in loaded for name, entry in safetensors_header(path).items()}
    if not _says_untied(config) and any(name.endswith(HEADS) for name in stored):
        return False
    stated = config.get("dtype", config.get("torch_dtype"))
    return stated == dtype and _wide(entry["dtype"] for entry in stored.values()) == {NAMES[dtype]}


def _says_untied(config: Mapping[str, object]) -> bool:
    """Whether a configuration says that the output head has weights of its own. What it leaves out depends on the architecture."""
    return all(isinstance(part, Mapping) and part.get("tie_word_embeddings") is False for part in (config, text_part(config)))


def _wide(dtypes: Iterable[str]) -> set[str]:
    return WIDE & set(dtypes)
