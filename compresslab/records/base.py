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
    """A record that is a file of its own. `records.reading` reads the versions that the field's type names, and refuses every other.

    The default is the version that is written. The others are older ones, whose files are whole records of this form.

    Each kind of file counts versions of its own, so that a new form of scores throws no trained model away. Whoever changes a record's
    fields, or what one means, raises the version of every kind of file that holds it. Where a field was only added, with a default that
    says that nobody looked, the older version stays among those that are read.

    Attributes:
        version: of the file's form.
    """

    version: int
