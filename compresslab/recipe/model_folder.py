"""The files of a model's folder: which of them decide what is loaded, and what is refused before anything reads them.

Every file counts that a loader could read: weights, shards in subfolders, vocabularies of all kinds, templates, and code that
`config.json` names. What no loader reads is listed here with the reason, so that a new README keeps the results in a store.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, LARGEST_INDEX, Stamp, kind_of, open_regular, read_json, reason, safetensors_header

WEIGHTS = ".safetensors"
INDEX = ".safetensors.index.json"
# Names of files and folders that no loader reads, in lower case. Names that begin with a dot are passed over, too: they belong to
# version control, editors and download caches.
PASSED_OVER = (
    *("readme*", "license*", "notice*", "*.md", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp"),  # documents, pictures
    *("pytorch_model*.bin", "pytorch_model.bin.index.json", "*.pt", "*.pth", "*.ckpt"),  # pickled weights, which are not loaded
    *("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite", "*.ot"),  # weights of other libraries
    *("__pycache__", "checkpoint-*", "runs", "training_args.bin"),  # what Python and training leave
)
PICKLED = ("pytorch_model*.bin", "model*.bin", "*.pth", "consolidated*.pt")
# Nothing but weights is as large as this: vocabularies have megabytes and code has kilobytes.
LARGEST_OTHER = 2**30
MOST_FILES = 10_000
_sound: set[tuple[str, Stamp]] = set()
CONVERT = "pickled weights are not loaded, because they can run code; save the model with `save_pretrained`, which writes safetensors"


def files_of(folder: Path) -> dict[str, Path]:
    """The files that decide what is loaded from a model's folder, by their names inside it.

    Raises:
        BadInput: an index names a file outside of the folder or weights that are no safetensors, there are only pickled weights, a weight
            file is cut off, or a file that would be read is no regular one.
    """
    found = dict(_walk(folder))
    top = [name for name in found if "/" not in name]
    for name in _named_by_configs(folder):
        if (folder / name).exists():
            found[name] = _inside(folder, name, "config.json")
    for name in [name for name in found if name.endswith(INDEX)]:
        for shard in _shards(found[name]):
            found[shard] = _inside(folder, shard, name)
    if not any(name.endswith((WEIGHTS, INDEX)) for name in top) and (pickled := _pickled(folder)):
        raise BadInput(f"the folder {folder} has {pickled} and no safetensors weights; {CONVERT}")
    files = {name: path for name, path in sorted(found.items()) if _is_file(path)}
    for name, path in files.items():
        if name.endswith(WEIGHTS):
            _check_weights(folder, path)
    return files


def check_model(path: Path) -> None:
    """Refuse a model's folder or GGUF file that must not be loaded. Raises BadInput like `files_of`."""
    if path.suffix == ".gguf":
        _check_gguf(path)
    else:
        files_of(path)
        _check_config(path / "config.json")


def check_shards(index: Path) -> None:
    """Refuse an index that names anything but safetensors below its folder. Raises BadInput."""
    for _ in _shards(index):
        pass


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder that a loader may read. Links to folders are not followed; an index may not name files behind them."""
    count = 0
    for here, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not _passed_over(name))
        for file in files:
            if not _passed_over(file):
                count += 1
                path = Path(here, file)
                if count > MOST_FILES:
                    raise BadInput(f"the folder {folder} holds more than {MOST_FILES:,} files; give the folder of one model")
                if file.endswith(WEIGHTS) or _size(path) <= LARGEST_OTHER:
                    yield path.relative_to(folder).as_posix(), path


def _unreadable(error: OSError) -> None:
    raise BadInput(f"the folder {error.filename} cannot be read ({error.strerror}); check its permissions") from error


def _passed_over(name: str) -> bool:
    return name.startswith(".") or any(fnmatch(name.lower(), form) for form in PASSED_OVER)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_file(path: Path) -> bool:
    """Whether there is a file. A link to nothing is none. Raises BadInput if it is not a regular one."""
    try:
        kind = kind_of(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})") from error
    if kind:
        raise BadInput(f"{path} is {kind}, not a regular file; a model's folder has regular files only")
    return True


def _shards(index: Path) -> Iterator[str]:
    """The names in an index of shards.

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
    for name in sorted(set(shards.values())):
        if not name.endswith(WEIGHTS):
            raise BadInput(f"{index} names {name[:100]!r} as weights; {CONVERT}")
        if not _is_below(name):
            raise BadInput(f"{index} names {name[:100]!r}, which is outside of the model's folder; an index names files of its folder")
        yield name


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name)


def _inside(folder: Path, name: str, named_by: str) -> Path:
    """A named file. It may be a link, as in the Hub's cache; the folder that it lies in may not lead out of the model's folder."""
    path = folder / name
    try:
        inside = path.parent.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{folder / named_by} names {name[:100]!r}, which cannot be found: {error}") from error
    if not inside:
        raise BadInput(f"{folder / named_by} names {name[:100]!r}, which a link leads out of the model's folder; copy the files into it")
    return path


def _check_weights(folder: Path, path: Path) -> None:
    """Refuse a file of weights that is cut off or damaged at its start. Each is looked at once a process while its stamp stays."""
    try:
        seen = (str(path), Stamp.of(path.stat()))
        if seen not in _sound:
            safetensors_header(path)
            _sound.add(seen)
    except (OSError, ValueError) as error:
        raise BadInput(f"a weight file of {folder} is damaged: {path.name}: {reason(error)}; download or save it again") from error


def _named_by_configs(folder: Path) -> Iterator[str]:
    """The files that config.json and the tokenizer's configuration name: code (`auto_map`), and weights (`transformers_weights`)."""
    for file in ("config.json", "tokenizer_config.json"):
        try:
            config: Any = read_json(folder / file, LARGEST_CONFIG)
        except (OSError, ValueError):
            continue  # a damaged configuration is reported where it is read
        for name in _names_in(config) if isinstance(config, dict) else ():
            if not _is_below(name):
                raise BadInput(f"{folder / file} names {name[:100]!r}, which is outside of the model's folder; copy the file into it")
            yield name


def _names_in(config: dict[str, Any]) -> Iterator[str]:
    if isinstance(weights := config.get("transformers_weights"), str):
        yield weights
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, dict) else ():
        for reference in value if isinstance(value, list) else [value]:
            # `owner/name--module.Class` names code on the hub.
            if isinstance(reference, str) and "--" not in reference and "." in reference:
                yield f"{reference.rpartition('.')[0]}.py"


def _pickled(folder: Path) -> str:
    """The name of pickled weights in a folder; empty if there are none."""
    return next((name for name in sorted(file.name for file in folder.iterdir()) if any(fnmatch(name, form) for form in PICKLED)), "")


def _check_config(path: Path) -> None:
    try:
        config = read_json(path, LARGEST_CONFIG)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({reason(error)}); download or save the model again") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no JSON object; download or save the model again")


def _check_gguf(path: Path) -> None:
    """Refuse a file whose first bytes cannot be those of a GGUF file: its magic, its version, and how much it says that it holds."""
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
