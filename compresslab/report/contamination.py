"""Sentences on the overlap of a study's texts with the items of its tasks."""

from __future__ import annotations

from compresslab.records import StudyRecord, TaskOverlap, TextOverlap, VariantRecord
from compresslab.report.words import point

NAMED = 6  # variants that a sentence names


def sentences(study: StudyRecord) -> list[str]:
    """One sentence a text, then one a variant whose density it could change; empty if nobody looked."""
    if study.overlaps is None:
        return []
    if not study.overlaps:
        return ["No step read calibration or training text, so there is nothing to compare the tasks with."]
    return [*map(_sentence, study.overlaps), *filter(None, map(_without, study.variants))]


def _sentence(text: TextOverlap) -> str:
    names = ", ".join(text.variants[:NAMED]) + (f" and {len(text.variants) - NAMED} more" if len(text.variants) > NAMED else "")
    what = f"The {text.role} text {text.source} ({text.sha256[:12]}; behind {names})"
    if text.reason:
        return f"{what} was not compared: {text.reason}."
    return f"{what} shares 13 consecutive words with {'; '.join(map(_counts, text.tasks))}."


def _without(variant: VariantRecord) -> str:
    """The density of a variant with and without the items that overlap; empty if there are none."""
    density = variant.density
    if density is None or density.params is None or density.without_overlap is None:
        return ""
    flipped = (row.against for row in variant.comparisons if any(one.choice == "overlap" and one.flips for one in row.robustness))
    turned = list(dict.fromkeys(flipped))
    verdicts = f" Its verdict against {' and '.join(turned)} turns." if turned else ""
    with_items, without_items = point(density.params), point(density.without_overlap)
    return f"{variant.name} has a density of {with_items}, and of {without_items} without the items that share 13 words.{verdicts}"


def _counts(task: TaskOverlap) -> str:
    too_few = f", {len(task.too_few_words):,} too short to tell" if task.too_few_words else ""
    return f"{len(task.words_13):,} of {task.items:,} items of {task.task} (8 words with {len(task.words_8):,}{too_few})"
