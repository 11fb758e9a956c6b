"""Models that the store refers to instead of keeping a copy: a folder of the user, with the digests of its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.files import atomic_write
from compresslab.inputs import LARGEST_RECORD, read_json, sha256_of
from compresslab.recipe.model_folder import files_of

REFERENCE = "reference.json"
# Where the folder is. It is no part of the result: the same model elsewhere is the same result.
PLACE = "place.json"


class Reference(NamedTuple):
    """The folder of a model that is referred to, and size in bytes and SHA-256 of each of its files that a loader may read."""

    folder: Path
    files: dict[str, tuple[int, str]]

    def changes(self, *, every_byte: bool) -> Iterator[str]:
        """How the folder differs from what was referred to, in words.

        Args:
            every_byte: whether weights are compared by SHA-256, too, and not by size alone.
        """
        if not self.folder.is_dir():
            yield f"the folder {self.folder}, which it refers to, is gone; put it back, or name the model where it is now"
            return
        for name, (size, digest) in sorted(self.files.items()):
            path = self.folder / name
            try:
                if path.stat().st_size != size or (every_byte and sha256_of(path) != digest):
                    yield f"{path}, which it refers to, has changed since"
            except OSError as error:
                yield f"{path}, which it refers to, cannot be read ({error.strerror})"

    def added(self) -> list[str]:
        """The files that a loader may read and that were not there."""
        try:
            return sorted(files_of(self.folder).keys() - self.files.keys())
        except BadInput:  # whoever loads the folder meets the same refusal and explains it
            return []


def refer(result: Path, folder: Path, files: Mapping[str, Path]) -> None:
    """Make a staged result refer to a folder.

    Args:
        files: those that a loader may read, by their names in the folder.

    Raises:
        OSError: a file cannot be read, or the result cannot be written.
    """
    digests = {name: (path.stat().st_size, sha256_of(path)) for name, path in files.items()}
    atomic_write(result / REFERENCE, json.dumps(digests, indent=2, sort_keys=True) + "\n")
    atomic_write(result / PLACE, json.dumps({"folder": str(folder.resolve())}) + "\n")


def referred_to(result: Path) -> Reference | None:
    """What a result refers to; `None` if it keeps its model itself, or what it says cannot be read."""
    if not (result / REFERENCE).is_file():
        return None
    try:
        files: Any = read_json(result / REFERENCE, LARGEST_RECORD)
        place: Any = read_json(result / PLACE, LARGEST_RECORD)
        return Reference(Path(place["folder"]), {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Reference(result / "a folder that is not known any more", {})


def model_folder(result: Path) -> Path:
    """The folder of a result's model, which plain transformers loads."""
    reference = referred_to(result)
    return result / "model" if reference is None else reference.folder


def copy_model(result: Path, target: Path) -> None:
    """Copy a result's model into a new folder; of a folder that it refers to, the files that a loader may read.

    The copies have the modes of new files, whatever those of the store are.
    """
    for name, path in files_of_model(result).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)


def files_of_model(result: Path) -> dict[str, Path]:
    """The files of a result's model by their names; of a folder that it refers to, those that a loader may read."""
    reference = referred_to(result)
    if reference is not None:
        return {name: reference.folder / name for name in reference.files}
    folder = result / "model"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
