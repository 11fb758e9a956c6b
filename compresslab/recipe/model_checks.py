"""Checks of single files of a model before anything loads them: names, an index of shards, and a GGUF file."""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_INDEX, LARGEST_TOKENIZER, open_regular, parse_json, read_json, read_regular, reason
from compresslab.methods.registry import formats

WEIGHTS = ".safetensors"
INDEX = ".safetensors.index.json"
MOST_FILES = 10_000
CONVERT = "pickled weights are not loaded, because they can run code; save the model with `save_pretrained`, which writes safetensors"
# The names of pickled weights, those that transformers writes first, and of weights in formats of other libraries.
PICKLED = ("pytorch_model*.bin", "model*.bin", "*.pth", "*.pt", "*.ckpt", "*.distcp", "*.bin", "*.pkl")
FOREIGN = ("*.h5", "*.msgpack", "*.onnx", "*.npz")
ADAPTER_WEIGHTS = f"adapter_model{WEIGHTS}"
MERGE = "merge the parts with llama.cpp's `gguf-split --merge`, and give the merged file"
# The names that llama.cpp gives to the parts of a split file.
SPLIT = re.compile(r".*-\d{5}-of-(\d{5})\.gguf")


def not_loaded(folder: Path, present: Sequence[str]) -> str:
    """Why a folder with neither `model.safetensors` nor an index of shards is not loaded; empty for a format of one file of any name.

    Args:
        present: the names in the folder.
    """
    weights = [name for name in present if name.endswith(WEIGHTS) and (folder / name).is_file()]
    if weights == [ADAPTER_WEIGHTS]:
        reason = "merge it into its model (peft's merge_and_unload), and give that"
        return f"the folder {folder} has the weights of an adapter ({ADAPTER_WEIGHTS}) and none of a model; {reason}"
    if len(weights) == 1 and any(name in present for known in formats() for name in known.files):
        return ""
    if weights:
        count = f"{len(weights):,} files of weights ({weights[0][:100]!r} is one)" if len(weights) > 1 else f"{weights[0][:100]!r}"
        advice = "download the index" if len(weights) > 1 else f"name it model{WEIGHTS} if it is the whole model"
        return (
            f"the folder {folder} has {count} and neither model{WEIGHTS} nor model{INDEX}, so transformers loads none; {advice}, or save "
            "the model again"
        )
    if pickled := _first_like(present, PICKLED):
        return f"the folder {folder} has {pickled} and no safetensors weights; {CONVERT}"
    if foreign := _first_like(present, FOREIGN):
        return f"the folder {folder} has {foreign} and no safetensors weights; save the model with transformers' `save_pretrained`"
    if gguf := _first_like(present, ("*.gguf",)):
        return f"the folder {folder} has no safetensors weights; to read {gguf}, give the file itself"
    return f"the folder {folder} has no weights: neither model{WEIGHTS} nor model{INDEX}; download or save the model again"


def _first_like(present: Sequence[str], forms: Sequence[str]) -> str:
    """The first name of the first form that any has; empty if none has one."""
    return next((name for form in forms for name in present if fnmatch(name, form)), "")


def shards_of(index: Path) -> Iterator[str]:
    """The names of files in an index of shards.

    Raises:
        BadInput: it is no index, or names anything but safetensors below its folder.
    """
    try:
        content = read_json(index, LARGEST_INDEX)
    except (OSError, ValueError) as error:
        raise BadInput(f"{index} cannot be read as an index of shards ({reason(error)}); download or save the model again") from error
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise BadInput(f"{index} is no index of shards: it has no weight_map from tensors to files; download or save the model again")
    names = sorted(set(shards.values()))
    if len(names) > MOST_FILES:
        raise BadInput(f"{index} names {len(names):,} files of weights; at most {MOST_FILES:,} are read. Save the model in larger files")
    for name in names:
        if not name.endswith(WEIGHTS):
            raise BadInput(f"{index} names {name[:100]!r} as weights; {CONVERT}")
        check_name(index, name)
        yield name
    if not isinstance(content.get("metadata"), dict):
        raise BadInput(f"{index} has no metadata, which transformers reads; download or save the model again")


def check_index(index: Path) -> None:
    """Refuse an index that names anything but safetensors below its folder. Raises BadInput."""
    for _ in shards_of(index):
        pass


def check_weights_name(config: Path, name: str) -> None:
    """Refuse weights that a configuration names and that are neither safetensors nor an index of them. Raises BadInput."""
    if not name.endswith((WEIGHTS, INDEX)):
        raise BadInput(f"{config} names {name[:100]!r} as weights; {CONVERT}")


def check_name(named_by: Path, name: str) -> None:
    """Refuse a name that is none of a file below the model's folder. Raises BadInput."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BadInput(f"{named_by} names {name[:100]!r}, which is outside of the model's folder; copy the file into it")
    try:
        usable = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise BadInput(f"{named_by} names {name[:100]!r}, which cannot be the name of a file; download or save the model again")


def check_tokenizer(path: Path) -> None:
    """Refuse a `tokenizer.json` whose normaliser asks for more memory than it has bytes, which would end the process.

    SentencePiece's `precompiled_charsmap` begins with the length of its trie, and tokenizers allocates as much.

    Raises:
        BadInput: it does. What else may be wrong with the file is reported where it is read.
    """
    try:
        content = read_regular(path, LARGEST_TOKENIZER)
        waiting = [parse_json(content).get("normalizer")] if b"precompiled_charsmap" in content else []
    except (OSError, ValueError, AttributeError):
        return
    for part in waiting:
        if not isinstance(part, dict):
            continue
        nested, coded = part.get("normalizers"), part.get("precompiled_charsmap", "")
        waiting += nested if isinstance(nested, list) else []
        if not isinstance(coded, str) or not coded:
            continue
        try:
            decoded = base64.b64decode(coded)
        except ValueError:
            continue
        if int.from_bytes(decoded[:4], "little") > len(decoded) - 4:
            raise BadInput(f"{path}: the precompiled_charsmap of its normaliser is damaged; download or save the model again")


def check_gguf(path: Path) -> None:
    """Refuse a part of a split file, and a file whose first bytes cannot be those of a GGUF file.

    The first bytes are its magic, its version, and how much it says that it holds.
    """
    if (parts := SPLIT.fullmatch(path.name)) and int(parts[1]) > 1:
        raise BadInput(f"{path} is one of {int(parts[1])} parts of a model; {MERGE}")
    try:
        with open_regular(path) as file:
            start, size = file.read(24), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BadInput(f"the GGUF file {path} cannot be read ({reason(error)})") from error
    if len(start) < 24 or start[:4] != b"GGUF":
        raise BadInput(f"{path} is no GGUF file: it does not begin as one; download it again")
    order = "<" if start[4:6] != b"\0\0" else ">"  # the version is a small number, in the byte order of the file
    version, tensors, fields = struct.unpack(f"{order}IQQ", start[4:])
    # A tensor's entry has at least 24 bytes, a field's at least 13.
    if not 2 <= version <= 3 or 24 * tensors + 13 * fields > size:
        raise BadInput(f"{path} is a damaged GGUF file: its header says more than the file can hold; download it again")
