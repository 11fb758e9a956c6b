"""The files of a model's folder: which of them decide what is loaded, and what is refused before anything reads them.

The kinds of files that transformers and its tokenizers read count, and so do the files that the configuration and an index of shards name.
If the folder's own code is run, every file counts, since that code may read any of them. Only what is read by its name refuses a model:
a folder, a pipe or a huge file beside it changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, Stamp, kind_of, read_json, reason, safetensors_header
from compresslab.recipe.model_checks import (
    INDEX,
    MOST_FILES,
    WEIGHTS,
    check_gguf,
    check_name,
    check_weights_name,
    not_loaded,
    shards_of,
)
from compresslab.recipe.model_config import claim_problem, read_config
from compresslab.recipe.source import HUB_ID, Source

VOCABULARY_SUFFIXES = (".model", ".tiktoken", ".spm", ".vocab", ".bpe", ".codes", ".tokenizer")
# Suffixes of what transformers and its tokenizers read: weights, configurations, templates and vocabularies.
READ = (WEIGHTS, ".json", ".jinja", ".txt", *VOCABULARY_SUFFIXES)
# Vocabularies without a suffix.
VOCABULARIES = ("vocab", "merges")
# What a tokenizer is read from, in its own suffix or under a name that tokenizers have.
VOCABULARY_FILES = (
    *(f"*{suffix}" for suffix in VOCABULARY_SUFFIXES),
    *("vocab*", "*vocab.json", "merges*", "dict.txt", "tekken.json", "word_shape.json", "byte_maps.json"),
)
# Of these kinds, what transformers reads without being told its name: configurations, templates and the vocabularies of its tokenizers.
BY_NAME = frozenset(
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
        "processor_config.json",
        "preprocessor_config.json",
        "tekken.json",
        "quantize_config.json",
        "quant_config.json",
        "tokenizer.model",
        "tiktoken.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "spm.model",
        "spm_char.model",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "bpe.codes",
        "dict.txt",
        "vocab-src.json",
        "vocab-tgt.json",
        "target_vocab.json",
        "entity_vocab.json",
        "word_shape.json",
        "word_pronunciation.json",
        "byte_maps.json",
        "normalizer.json",
        "emoji.json",
        "prophetnet.tokenizer",
    ]
)
# The one folder that is read without being named.
TEMPLATES = "additional_chat_templates"
# Code that transformers runs without being told its name, if it may run a model's own.
CODE_OF_GENERATION = "custom_generate/generate.py"
CONFIGS = ("config.json", "tokenizer_config.json")
ADAPTER = "adapter_config.json"
# Bytes of a configuration or a vocabulary. A sparse file may claim any size.
LARGEST_OTHER = 2**30
_sound: set[tuple[str, Stamp]] = set()


def files_of(folder: Path, own_code: bool = False) -> dict[str, Path]:
    """The files that decide what is loaded from a model's folder, by their names inside it.

    Args:
        own_code: whether the code that the configuration names may be run.

    Raises:
        BadInput: the folder is an adapter or has pickled weights only, an index or the configuration names a file outside of the folder or
            weights that are missing or no safetensors, weights that are loaded are cut off, or a file that is read is no regular one.
    """
    try:
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    if len(present) > MOST_FILES:
        raise BadInput(f"the folder {folder} holds more than {MOST_FILES:,} files; give the folder of one model")
    named = _named(folder, own_code)
    _check_kind(folder, present, named.weights)
    loaded = _loaded_weights(folder, present, named.weights)
    kinds = [name for name in present if _is_read(name)]
    needed = {*_templates(folder), *named.files, *loaded, *(name for name in kinds if name in BY_NAME)}
    found: dict[str, Path] = {}
    for name in [*kinds, *needed]:
        # What else is of these kinds is in the keys, since a tokenizer of another version may read it, but need not be sound.
        path, is_needed = folder / name, name in needed
        if name.endswith((WEIGHTS, INDEX)) and not is_needed:
            continue  # weights of another model, or of an earlier save
        if _is_file(path, refuse=is_needed) and (is_needed or _could_be_read(path)):
            found[name] = path
    if own_code and (named.code or _is_there(folder / CODE_OF_GENERATION)):
        found |= {name: path for name, path in _walk(folder) if _is_file(path, refuse=False)}
    for name in loaded:
        if name in found and name.endswith(WEIGHTS):
            _check_weights(folder, found[name])
    return dict(sorted(found.items()))


def weights_of(folder: Path) -> list[Path]:
    """The files of weights that transformers loads from a model's folder, after an index that names them. Others may lie beside them.

    Raises:
        BadInput: the folder cannot be read, or its weights are refused like by `files_of`.
    """
    try:
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    return [folder / name for name in _loaded_weights(folder, present, _named(folder, False).weights)]


def check_model(source: Source, own_code: bool = False) -> None:
    """Refuse a model's folder or GGUF file that must not be loaded. Raises BadInput like `files_of`."""
    path = Path(source.name)
    if source.kind == "gguf":
        check_gguf(path)
    elif source.kind == "folder":
        files_of(path, own_code)
        read_config(path / CONFIGS[0])


def check_claims(folder: Path) -> None:
    """Refuse a folder whose weights are far too few for the dimensions in its configuration.

    Raises:
        BadInput: they are, or the folder is refused like by `files_of`, or its configuration like by `read_config`.
    """
    weights = [path for name, path in files_of(folder).items() if name.endswith(WEIGHTS)]
    tensors = 0
    for path in weights:
        with contextlib.suppress(OSError, ValueError):  # one that is not loaded need not be sound
            tensors += len(safetensors_header(path))
    config = folder / CONFIGS[0]
    if weights and (problem := claim_problem(read_config(config), tensors, sum(path.stat().st_size for path in weights))):
        raise BadInput(f"{config}: {problem}; the configuration is not that of these weights: download or save the model again")


def adapter_refused(model: str) -> BadInput:
    """The error for an adapter, which transformers would load together with a model of its own choice."""
    return BadInput(f"{model} has an adapter ({ADAPTER}); merge it into its model (peft's merge_and_unload), and give that")


def code_elsewhere(folder: Path) -> list[str]:
    """The repositories on the hub whose code a model's folder names."""
    return sorted({repository for config in _configs(folder).values() for repository, _ in _references(config) if repository})


class _Named(NamedTuple):
    """What the configuration names. files: other files. weights: the weights, or an index of them. code: whether it names code."""

    files: list[str]
    weights: str
    code: bool


def _named(folder: Path, own_code: bool) -> _Named:
    """What the configuration of a model's folder names. Raises BadInput for names that lead out of the folder."""
    files, weights, code = [], "", False
    for file, config in _configs(folder).items():
        for name in _weights_in(config):
            check_weights_name(folder / file, name)
            weights = weights or name
        for repository, module in _references(config):
            code = True
            if not repository:
                files.append(f"{module}.py")
            elif own_code and (_is_there(Path(repository)) or not HUB_ID.fullmatch(repository)):
                raise BadInput(f"{folder / file} names code in {repository[:100]!r}, outside of the model's folder; copy it there")
        files += _versions_in(config)
        _check_inside(folder, [*files, *([weights] if weights else [])], folder / file)
    return _Named([name for name in files if _is_there(folder / name)], weights, code)


def _configs(folder: Path) -> dict[str, dict[str, Any]]:
    """The model's and the tokenizer's configuration, with those for other versions of transformers that they name, by file."""
    found: dict[str, dict[str, Any]] = {}
    waiting = list(CONFIGS)
    for name in waiting:
        try:
            check_name(folder, name)
            config: Any = read_json(folder / name, LARGEST_CONFIG)
        except (OSError, ValueError, BadInput):
            continue  # a damaged configuration is reported where it is read
        if isinstance(config, dict):
            found[name] = config
            if name in CONFIGS:
                waiting += _versions_in(config)
    return found


def _versions_in(config: dict[str, Any]) -> list[str]:
    """The files that a configuration names for other versions of transformers."""
    listed = [config.get(key) for key in ("configuration_files", "fast_tokenizer_files")]
    return [name for names in listed if isinstance(names, list) for name in names if isinstance(name, str)][:MOST_FILES]


def weights_named_in(path: Path) -> list[str]:
    """The weights that a configuration names; none if it cannot be read."""
    try:
        config = read_json(path, LARGEST_CONFIG)
    except (OSError, ValueError):
        return []
    return list(_weights_in(config)) if isinstance(config, dict) else []


def _weights_in(config: dict[str, Any]) -> Iterator[str]:
    """The files of weights in a configuration and in those of its parts, such as `text_config`."""
    for part in (config, *config.values()):
        if isinstance(part, dict) and isinstance(name := part.get("transformers_weights"), str):
            yield name


def _references(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The code that a configuration names: the repository, empty for its own folder, and the module."""
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, dict) else [named]:
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and "." in reference:
                repository, _, inside = reference.rpartition("--")
                yield repository, inside.rpartition(".")[0]


def _check_kind(folder: Path, present: list[str], weights: str) -> None:
    """Refuse a folder of which transformers loads no weights, and an adapter, whose weights lie in another folder."""
    if ADAPTER in present:
        raise adapter_refused(f"the folder {folder}")
    if not weights and not _first(folder) and (problem := not_loaded(folder, present)):
        raise BadInput(problem)


def _first(folder: Path) -> str:
    """The file of weights, or the index of them, that transformers takes of a folder; empty if there is neither."""
    return next((name for name in (f"model{WEIGHTS}", f"model{INDEX}") if _is_there(folder / name, folders=False)), "")


def _loaded_weights(folder: Path, present: list[str], named: str) -> list[str]:
    """The files of weights that are loaded, and their index, in transformers' order of preference."""
    first = named or _first(folder)
    if not first:
        return [name for name in present if name.endswith(WEIGHTS) and _is_there(folder / name, folders=False)]
    if named:
        _check_there(folder, [named], "its configuration")
    if not first.endswith(INDEX):
        return [first]
    shards = list(shards_of(folder / first)) if _is_file(folder / first) else []
    _check_inside(folder, shards, folder / first)
    _check_there(folder, shards, first)
    return [first, *shards]


def _templates(folder: Path) -> list[str]:
    try:
        return sorted(f"{TEMPLATES}/{path.name}" for path in (folder / TEMPLATES).glob("*.jinja"))
    except OSError:
        return []  # transformers does not read it, either


def _check_there(folder: Path, weights: list[str], named_by: str) -> None:
    """Refuse files of weights that are named and missing."""
    missing = [name for name in weights if not _is_there(folder / name)]
    if missing:
        count = f"{len(missing):,} of the {len(weights):,} files of weights" if len(missing) > 1 else "one file of weights"
        raise BadInput(f"{folder} lacks {count} that {named_by} names: {missing[0][:100]!r}; download it, or save the model again")


def _is_there(path: Path, folders: bool = True) -> bool:
    """Whether there is something at a path, which may be longer than the file system allows. `folders`: whether a folder counts."""
    try:
        return path.exists() and (folders or not path.is_dir())
    except (OSError, ValueError):
        return False


def _is_read(name: str) -> bool:
    """Whether a file is of a kind that loaders read."""
    return name.endswith(READ) or name in VOCABULARIES


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder, except those in folders whose names begin with a dot, which belong to version control and to stores.

    Links to folders are followed, each folder once. What cannot be read is passed over, since the code cannot read it, either.
    """
    count, seen = 0, {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        entered = []
        for name in sorted(folders):
            real = os.path.realpath(Path(here, name))
            if not name.startswith(".") and name != "__pycache__" and real not in seen:
                seen.add(real)
                entered.append(name)
        folders[:] = entered
        for file in files:
            count += 1
            if count > MOST_FILES:
                raise BadInput(f"the folder {folder} holds more than {MOST_FILES:,} files; give the folder of one model")
            path = Path(here, file)
            yield path.relative_to(folder).as_posix(), path


def _is_file(path: Path, refuse: bool = True) -> bool:
    """Whether there is a regular file. A link to nothing is none, and neither is a folder: loaders pass over it.

    Raises:
        BadInput: there is anything else, or a configuration or a vocabulary that is too large, and it is to be refused.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        if refuse:
            raise BadInput(f"{path} cannot be read ({error.strerror})") from error
        return False
    kind, is_weights = kind_of(status.st_mode), path.name.endswith(WEIGHTS)
    if refuse and not kind and status.st_size > LARGEST_OTHER and not is_weights:
        raise BadInput(f"{path} has {status.st_size:,} bytes, and no configuration or vocabulary is so large; download or save it again")
    if refuse and kind and (is_weights or not stat.S_ISDIR(status.st_mode)):
        raise BadInput(f"{path} is {kind}, not a regular file; a model's folder has regular files only")
    return not kind


def _could_be_read(path: Path) -> bool:
    """Whether a file may be read and is no larger than vocabularies are."""
    return os.access(path, os.R_OK) and path.stat().st_size <= LARGEST_OTHER


def _check_inside(folder: Path, names: Iterable[str], named_by: Path) -> None:
    """Refuse names of files that lie in folders outside of the model's. The files may be links, as in the Hub's cache."""
    real, parents = os.path.realpath(folder), set()
    for name in names:
        check_name(named_by, name)
        parent = name.rpartition("/")[0]
        if parent and parent not in parents:
            parents.add(parent)
            if os.path.commonpath([real, os.path.realpath(folder / parent)]) != real:
                raise BadInput(f"{named_by} names {name[:100]!r}, which a link leads out of the model's folder; copy the files into it")


def _check_weights(folder: Path, path: Path) -> None:
    """Refuse a file of weights that is cut off or damaged at its start. Each is looked at once a process while its stamp stays."""
    try:
        seen = (str(path), Stamp.of(path.stat()))
        if seen not in _sound:
            safetensors_header(path)
            if seen[1].settled:
                _sound.add(seen)
    except (OSError, ValueError) as error:
        raise BadInput(f"a weight file of {folder} is damaged: {path.name}: {reason(error)}; download or save it again") from error
