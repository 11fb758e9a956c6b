"""Reads a study's record from its report."""

from __future__ import annotations

from pathlib import Path

from compresslab.errors import BadInput
from compresslab.records import read_record
from compresslab.studies.study import Study


def read_study(path: str | Path) -> Study:
    """The record of a report: its folder, or the `study.json` in it.

    Raises:
        BadInput: there is none, or it is damaged or of another version.
    """
    file = Path(path)
    file = file / "study.json" if file.is_dir() else file
    if not file.is_file():
        raise BadInput(f"no record at {file}; `compresslab run RECIPE` writes one into reports/<study>/study.json")
    return read_record(file, Study, "`compresslab report RECIPE` writes it again")
