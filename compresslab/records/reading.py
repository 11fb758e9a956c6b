"""Stored records read back: the record, or one clear message for what is wrong with its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_RECORD, parse_json, read_regular, reason
from compresslab.records.base import StoredRecord

Some = TypeVar("Some", bound=StoredRecord)


class UnreadableRecord(BadInput):
    """A stored record that is missing, damaged or of another version.

    Attributes:
        problem: what is wrong with the file, to be read after its name.
    """

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        self.problem = problem
        super().__init__(f"{path} {problem}; {advice}")


def read_record(path: Path, kind: type[Some], advice: str) -> Some:
    """A record from its file. A file of an older form that is read still gives a record of the form that is written now.

    Args:
        advice: what to do about a file that cannot be read, as the end of the message.

    Raises:
        UnreadableRecord: the file is missing, damaged, or of an older or newer version.
    """
    try:
        content = read_regular(path, LARGEST_RECORD)
        stored = parse_json(content)
    except FileNotFoundError as error:
        raise UnreadableRecord(path, "is missing", advice) from error
    except OSError as error:
        raise UnreadableRecord(path, f"cannot be read ({reason(error)})", advice) from error
    except ValueError as error:
        raise UnreadableRecord(path, "is damaged: it is no whole JSON", advice) from error
    version = kind.model_fields["version"]
    if problem := _version_problem(stored, version.default, get_args(version.annotation)):
        raise UnreadableRecord(path, problem, advice)
    try:
        return kind.model_validate_json(content).model_copy(update={"version": version.default})
    except ValidationError as error:
        raise UnreadableRecord(path, f"is damaged: {_first(error)}", advice) from error


def _version_problem(stored: Any, ours: int, readable: tuple[int, ...]) -> str:
    """What is wrong with a record's version; empty if it is one of the `readable`.

    A record that says none is from before versions were written.
    """
    if not isinstance(stored, dict) or not isinstance(version := stored.get("version", 0), int):
        return "is damaged: it is no record"
    if version in readable:
        return ""
    age = "an older" if version < ours else "a newer"
    return f"was not written by this version of compresslab but by {age} one (its form is {version}, and this one reads {ours})"


def _first(error: ValidationError) -> str:
    """The first thing that is wrong with a record's fields."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "it"
    return f"{where} {'is missing' if first['type'] == 'missing' else 'is not what it should be'}"
