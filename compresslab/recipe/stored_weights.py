"""Whether a model's folder is what a saved copy of it would be, by its files alone. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, read_json, safetensors_header
from compresslab.methods.format import stated_quantization
from compresslab.recipe.model_checks import INDEX, WEIGHTS, shards_of
from compresslab.recipe.model_config import text_part
from compresslab.records.compute import Dtype

# safetensors' names of floating-point dtypes of 16 bits or more, by those of torch.
NAMES: dict[Dtype, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
WIDE = {*NAMES.values(), "F64"}
# Output heads in files, by the ends of their names.
HEADS = ("lm_head.weight", "embed_out.weight")


def loaded_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads: the single one, else those of the index.

    Raises:
        BadInput: there is neither, or the index is damaged.
    """
    single = folder / f"model{WEIGHTS}"
    return [single] if single.is_file() else [folder / name for name in shards_of(folder / f"model{INDEX}")]


def plainly_stored(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    """Whether a folder has plain safetensors in this dtype, a tokenizer, no code of its own and no other weights.

    An output head in the files is one of the other weights, unless the config says that it is not tied to the embeddings. It may be a copy
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
    if {path.name for path in folder.glob(f"*{WEIGHTS}")} != {path.name for path in loaded}:
        return False
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
