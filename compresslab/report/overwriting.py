"""What a command may write over: what compresslab wrote itself. A page also has to be of the same study."""

from __future__ import annotations

import os
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.inputs import open_regular, reason
from compresslab.records import StudyRecord, UnreadableRecord, read_record

GENERATOR_TAG = '<meta name="generator" content="compresslab">'
MARKDOWN_MARK = "<!-- written by compresslab -->"
SVG_MARK = "<!-- drawn by compresslab -->"
# The mark of a page stands in its head, that of a picture at its end.
_MARKED_BYTES = 20_000


def check_page(folder: Path, study: str) -> StudyRecord | None:
    """Refuse to write a study's page into a folder with another page. Returns the record of the page that will be replaced, if any.

    Raises:
        BadInput: the folder has a page that compresslab did not write, or that of another study.
    """
    check_file(folder / "index.html", GENERATOR_TAG, "name another folder")
    check_file(folder / "report.md", MARKDOWN_MARK, "name another folder")
    try:
        record = read_record(folder / "study.json", StudyRecord, "")
    except UnreadableRecord as error:
        if not (folder / "index.html").is_file() and os.path.lexists(folder / "study.json"):
            raise BadInput(
                f"{folder / 'study.json'} is there already and is no record of a study ({error.problem}); name another folder"
            ) from error
        return None  # there is none, or the damaged one of our page is written again
    if record.study != study:
        raise BadInput(f"{folder} has the page of the study {record.study!r}, not of {study!r}; name another folder")
    return record


def check_file(path: Path, mark: str, advice: str) -> None:
    """Refuse to write over a file that lacks the mark of files that compresslab writes.

    Args:
        advice: what to do instead, as the end of the message.

    Raises:
        BadInput: there is such a file, or something that is no file.
    """
    try:
        with open_regular(path) as file:
            start = file.read(_MARKED_BYTES)
            file.seek(max(0, path.stat().st_size - _MARKED_BYTES))
            found = mark.encode() in start + file.read(_MARKED_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(f"{path} is there already and cannot be replaced ({reason(error)}); {advice}") from error
    if not found:
        raise BadInput(f"{path} is there already, and compresslab did not write it; {advice}")
