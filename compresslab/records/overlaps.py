"""Which items of a study's tasks overlap with the text that its steps read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compresslab.records.base import Record


class TaskOverlap(Record):
    """The items of one task that overlap with one text.

    Attributes:
        items: number of items. words_13, words_8: identifiers of those that share 13 and 8 consecutive words with the text.
        too_few_words: identifiers of the items that have too few words to tell.
    """

    task: str
    items: int
    words_13: list[str] = Field(default_factory=list)
    words_8: list[str] = Field(default_factory=list)
    too_few_words: list[str] = Field(default_factory=list)


class TextOverlap(Record):
    """One text that steps of a study read, compared with the items of its tasks.

    Attributes:
        role: what the steps read it for. source: as the recipe names it. sha256: of the documents that were read.
        variants: the variants that depend on it: their own steps, those before them, or those of a teacher read it.
        tasks: of the tasks that were compared. reason: why nothing was compared, or "".
    """

    role: Literal["calibration", "training"]
    source: str
    sha256: str
    variants: list[str]
    tasks: list[TaskOverlap] = Field(default_factory=list)
    reason: str = ""
