"""What all records have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from compresslab.records.display import as_html


class Record(BaseModel):
    """A frozen record; unknown keys are errors. In JSON an infinite number is the string "Infinity", which every reader of JSON takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return as_html(self)


class StoredRecord(Record):
    """A record that is a file of its own. `records.reading` reads it, and refuses every version but this one.

    Each kind of file counts versions of its own, so that a new form of scores throws no trained model away. Whoever changes a record's
    fields, or what one means, raises the version of every kind of file that holds it.

    Attributes:
        version: of the file's form.
    """

    version: int
