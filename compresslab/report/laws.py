"""What the page says of published laws: the predictions with a figure, and in sentences why the others have none."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.density.published_laws.law import Law
from compresslab.density.published_laws.predictions import LAWS
from compresslab.records import LawPrediction, LawRefit, StudyRecord
from compresslab.report.words import point, span

NAMED = 6  # variants that a sentence names


class Laws(NamedTuple):
    """The laws of a study for its page.

    Attributes:
        rows: predictions with a figure. silent: one sentence for each law and reason that it predicts nothing. refits: fits of the study's.
        named: the laws that these name.
    """

    rows: list[LawPrediction]
    silent: list[str]
    refits: list[LawRefit]
    named: list[Law]


def laws(study: StudyRecord) -> Laws | None:
    """The laws of a study; `None` where nobody looked or none speaks of its steps."""
    found = study.laws
    if found is None or not (found.predictions or found.refits):
        return None
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found.predictions:
        if row.predicted is None:
            reasons.setdefault((row.cited, row.reason), []).append(row.variant)
    silent = [f"{cited}, for {_named(names)}: {reason}." for (cited, reason), names in reasons.items()]
    names = {row.law for row in found.predictions} | {fit.law for fit in found.refits}
    named = [law for law in LAWS if law.name in names]
    return Laws([row for row in found.predictions if row.predicted is not None], silent, found.refits, named)


def predicted(row: LawPrediction) -> str:
    """The predicted value with the interval that the law's source leaves open, if any."""
    value = row.predicted
    assert value is not None, "a row of the table has a prediction"
    return point(value) if value.low == value.high else f"{point(value)} {span(value)}"


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
