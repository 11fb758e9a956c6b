"""A variant's model as a folder outside of the store, with its card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gguf import GGUFReader

from compresslab.errors import BadInput
from compresslab.export.card import Target, card
from compresslab.export.origin import CARD, Origin
from compresslab.inputs import LARGEST_CONFIG, read_json, sha256_of
from compresslab.methods.format import stated_quantization
from compresslab.records import StudyRecord, VariantRecord
from compresslab.store.reference import copy_model, files_of_model

# The card of the model that a variant was made from, beside the variant's own.
OWN_CARD = "BASE_README.md"


def write_folder(result: Path, folder: Path, study: StudyRecord, variant: VariantRecord, origin: Origin, name: str = "") -> None:
    """Copy the model of a result into a new folder, with its card, and with the card and the terms of the model that it was made from.

    Args:
        result: the result's folder in the store.
        name: of the folder in the card's example; by default its own.
    """
    # An interrupted copy must not leave a folder that looks complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        copy = Path(scratch) / "model"
        copy_model(result, copy)
        beside = {file.name: file for file in origin.terms} | ({OWN_CARD: origin.card} if origin.card else {})
        for target, file in beside.items():
            if not (copy / target).exists():
                shutil.copyfile(file, copy / target)
        described = Target(name or folder.name, _quant_method(copy), own_card=OWN_CARD if origin.card else "")
        (copy / CARD).write_text(card(study, variant, described, origin), encoding="utf-8")
        copy.rename(folder)


def check_same_model(result: Path, folder: Path) -> None:
    """Refuse a folder that is not an export of a result's model. Its card may have been edited.

    Raises:
        BadInput: a file of the model is missing in it or differs.
    """
    for name, path in files_of_model(result).items():
        copy = folder / name
        if not copy.is_file() or sha256_of(copy) != sha256_of(path):
            raise BadInput(f"{folder} exists already and is no export of this variant ({name} differs); give a folder that does not exist")
    if not (folder / CARD).is_file():
        raise BadInput(f"{folder} has no {CARD}; remove the folder, and export again")


def check_same_file(path: Path, description: str, card_path: Path) -> None:
    """Refuse a GGUF file that is not an export of a model, or has no card. Its card may have been edited.

    Args:
        description: that of the file, which names the model.

    Raises:
        BadInput: it has another description, is no GGUF file, or one of the two is missing.
    """
    for needed in (path, card_path):
        if not needed.is_file():
            other = card_path if needed == path else path
            raise BadInput(f"{other} exists already and {needed} does not; give another name, or remove {other}")
    try:
        field = GGUFReader(path).fields.get("general.description")
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"{path} exists already and is no whole GGUF file; give another name, or remove it") from error
    if field is None or field.contents() != description:
        raise BadInput(f"{path} exists already and is no export of this variant; give a name that does not exist")


def _quant_method(folder: Path) -> str:
    """The `quant_method` of packed weights; empty for plain ones."""
    config = read_json(folder / "config.json", LARGEST_CONFIG)
    return str((stated_quantization(config) or {}).get("quant_method") or "")
