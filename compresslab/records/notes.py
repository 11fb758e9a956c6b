"""What a store notes of a study: which results it uses, and where it ran."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from compresslab.records.base import Record, StoredRecord
from compresslab.records.compute import Compute


def _countable(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, whose counts a report tells and a plan computes with."""
    least = {"threads": 1, "memory_gib": 0}
    wrong = [name for name in least if name in facts and not (type(facts[name]) is int and facts[name] >= least[name])]
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} must be whole numbers")
    return facts


class RunNote(Record):
    """A study's run on one machine in one compute dtype, from one recipe.

    Attributes:
        recipe: the recipe's whole path; empty where it is not known.
        machine: its name. facts: what decides times there. keys: of all results that the run uses.
        trust_code: whether programs of the model ran without a sandbox.
    """

    recipe: str = ""
    compute: Compute
    machine: str
    facts: Annotated[dict[str, Any], AfterValidator(_countable)]
    keys: list[str]
    trust_code: bool = False


class StudyNote(StoredRecord):
    """A study of a store.

    Attributes:
        recipe: the recipe's path. finished: the end of the last whole run, ISO 8601; empty before.
        variants: keys of what is known of each variant, by kind.
        runs: by what tells recipes, machines and dtypes apart. last: which of them was the last.
        keys: of all results that the study uses; `None` where that is not known, so that nothing may be freed.
    """

    version: Literal[2] = 2
    recipe: str
    finished: str
    variants: dict[str, dict[str, str]]
    runs: dict[str, RunNote] = Field(default_factory=dict)
    last: str = ""
    keys: list[str] | None = None
