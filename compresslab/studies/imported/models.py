"""The sizes of imported models, and whether a child is a copy of its parent's weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import BadInput, RunFailed
from compresslab.plan.user_tables.sizes import UNKNOWN_SHAPE, quantization_in_name, size_from_config, stated_size
from compresslab.recipe.model_config import read_config
from compresslab.records import Shape, Size
from compresslab.studies.imported.files import ModelResults

NUMBER = re.compile(r"(?P<parameters>[0-9][0-9_.]*(?:[eE][+]?[0-9]+)?)(?:@(?P<bits>[0-9.]+))?")
QUANTIZED_ARGUMENT = re.compile(
    r"load_in_[48]bit[=:]true|(autogptq|gptqmodel)[=:](?!false|none|null)\w+|gguf_file|quantization_config|bnb_4bit_\w+|quantization[=:](?!none|null)\w+",
    re.IGNORECASE,
)
"""What in lm-eval's `model_args` says that weights are quantized as they are loaded, or in other files than config.json tells."""

LEAST_PLAIN_BITS = 15.5  # stored bits of a weight, of a model without quantization
FORMS = "NAME=FOLDER, NAME=config.json, or NAME=1.2e9 (with the stored bits of a weight: NAME=config.json@4.25, NAME=1.2e9@4.25)"
WITH_BITS = re.compile(r"(?P<path>.+)@(?P<bits>[0-9]+(?:\.[0-9]+)?)")


class ImportedModel(NamedTuple):
    """Size and shape of a model, its folder if it is at hand with its weights, where the size comes from, in words, and the bits of a
    weight if they were stated."""

    size: Size
    shape: Shape
    folder: Path | None
    source: str
    stated_bits: float | None = None


def sizes_of(models: Sequence[ModelResults], stated: Sequence[str]) -> dict[str, ImportedModel]:
    """The size of every model: as stated by `--size`, or from the folder that lm-eval loaded, if it is on this machine.

    Raises:
        BadInput: a size that cannot be read, is of no model, or is missing; the message names every missing one.
    """
    given: dict[str, str] = {}
    for text in stated:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise BadInput(f"--size {text}: write {FORMS}")
        if name in given:
            raise BadInput(f"--size {name} stands there twice")
        given[name] = value
    names = [model.name for model in models]
    if unknown := [name for name in given if name not in names]:
        raise BadInput(f"--size {unknown[0]}={given[unknown[0]]}: no model is called {unknown[0]}; there are {', '.join(names)}")
    for model in models:
        if model.name not in given and (Path(model.model) / "config.json").is_file():
            given[model.name] = model.model
    if missing := [name for name in names if name not in given]:
        raise BadInput(
            f"the size of {', '.join(missing)} is not known, and density needs it: add {' '.join(f'--size {name}=…' for name in missing)} "
            f"({FORMS}). Count the parameters that multiply activations: all but an input embedding that is not tied"
        )
    return {model.name: _checked(model, given[model.name]) for model in models}


def _checked(model: ModelResults, value: str) -> ImportedModel:
    """The size of a model, held against what lm-eval's file says of it.

    Raises:
        BadInput: the size takes 16 bits a weight, and the model was quantized; or its parameters are not those that lm-eval counted.
    """
    where = f"--size {model.name}={value}"
    found = _model(where, value)
    said = _quantized_in_words(model, counted=found.folder is not None)
    if found.size.effective_bits >= LEAST_PLAIN_BITS and found.stated_bits is None and said:
        count = f"{model.parameters or found.size.parameters:.3g}".replace("e+0", "e").replace("e+", "e")
        size = count if NUMBER.fullmatch(value) else value
        raise BadInput(
            f"{where} has {found.size.effective_bits:.3g} bits a weight, and {said}; add the stored bits of a weight with its scales: "
            f"--size {model.name}={size}@4.25 (@16 if it is not quantized)"
        )
    counted, stated = model.parameters, found.size.counted
    if found.folder is None and counted and found.stated_bits is None and not 0.1 * counted <= stated <= 1.02 * counted:
        raise BadInput(
            f"{where}: these are {stated:.4g} parameters, and lm-eval counted {counted:.4g} in the model; correct the number, or, if its "
            f"weights are packed, which lm-eval does not count, add their stored bits: --size {model.name}={stated:.4g}@4.25"
        )
    return found


def _quantized_in_words(model: ModelResults, *, counted: bool) -> str:
    """What says that a model was quantized when lm-eval ran it; "" for nothing. Where its files were counted, its name says nothing."""
    if found := QUANTIZED_ARGUMENT.search(re.sub(r"['\" ]", "", model.arguments)):
        return f"lm-eval loaded the model with {found[0]}"
    if model.backend in ("gguf", "ggml", "gptqmodel"):
        return f"lm-eval ran it by its backend {model.backend}"
    for name in () if counted else (model.name, model.model.rstrip("/").rpartition("/")[2]):
        if found_part := quantization_in_name(name):
            return f"the name {name} says that weights are quantized ({found_part})"
    return ""


def _model(where: str, value: str) -> ImportedModel:
    if (found := NUMBER.fullmatch(value)) and not Path(value).exists():
        try:
            parameters, of_all = float(found["parameters"]), float(found["bits"] or 16.0)
            source = f"stated: {value}" if found["bits"] else f"stated: {value}, taken as weights of 16 bits"
            return ImportedModel(*stated_size(parameters, of_all), None, source, of_all if found["bits"] else None)
        except (BadInput, ValueError) as error:
            raise BadInput(f"{where}: {error}") from error
    path, bits = _path_and_bits(value)
    try:
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise BadInput("the folder has no config.json, so it is not a model")
            if bits is None and any(path.glob("*.safetensors")):
                return _from_folder(path)
            if bits is None and any(path.glob("*.gguf")):
                raise BadInput(f"the folder has its weights in .gguf files, which are not counted here; add their stored bits: {where}@4.5")
            path /= "config.json"
        if not path.is_file():
            raise BadInput(f"there is neither such a file or folder, nor is it a number; write {FORMS}")
        size, shape = size_from_config(path, bits, stated_by=f"as {where}@4.25")
        told = "" if bits is None else f", with {bits:g} bits a weight as stated, and 16 of embeddings and output head"
        return ImportedModel(size, shape, None, f"counted from {path.name}{told}", bits)
    except (BadInput, RunFailed) as error:
        raise BadInput(f"{where}: {error}") from error


def _path_and_bits(value: str) -> tuple[Path, float | None]:
    """A path, and the stored bits of a weight if it ends in them: `config.json@4.25`. A path that exists as it is has none."""
    found = WITH_BITS.fullmatch(value)
    if found is None or Path(value).expanduser().exists():
        return Path(value).expanduser(), None
    return Path(found["path"]).expanduser(), float(found["bits"])


def _from_folder(folder: Path) -> ImportedModel:
    """Counted from the files, as of a variant of a study. Zeros are not counted, since that reads every weight."""
    from compresslab.models.anatomy import parameters_of
    from compresslab.models.counting.size import plain_skeleton, shape_of, size_of  # imports torch

    size = size_of(folder, parameters_of(plain_skeleton(folder)))
    return ImportedModel(size, shape_of(folder, size), folder, f"counted from the files in {folder.name}")


def are_timed(models: Iterable[ImportedModel]) -> bool:
    """Whether the dimensions of all models are known, from which times are modelled."""
    return all(model.shape.architecture != UNKNOWN_SHAPE for model in models)


def quantization_of(model: ImportedModel) -> str | None:
    """What a folder's config.json says of its quantization; `None` for plain weights and without a folder."""
    if model.folder is None:
        return None
    stated = read_config(model.folder / "config.json").get("quantization_config")
    return str(stated.get("quant_method") or "unnamed") if isinstance(stated, Mapping) else None
