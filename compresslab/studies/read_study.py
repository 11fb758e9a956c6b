"""Reads a study's record from its report."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from compresslab.errors import BadInput
from compresslab.records import StudyRecord


def read_study(path: str | Path) -> StudyRecord:
    """The record of a report: its folder, or the `study.json` in it.

    Raises:
        BadInput: there is none, or it is of another version.
    """
    file = Path(path)
    file = file / "study.json" if file.is_dir() else file
    try:
        return StudyRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"no record at {file}; `compresslab run RECIPE` writes one into reports/<study>/study.json") from error
    except ValidationError as error:
        raise BadInput(f"{file} was not written by this version of compresslab; `compresslab report RECIPE` writes it again") from error
