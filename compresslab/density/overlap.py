"""Densities and ratios without the items that overlap with the text behind a variant: a row of robustness that counts.

Items are left out of child, parent and root alike, and resampled again with draws that all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from compresslab.density.comparison import assess
from compresslab.density.draws import Measured
from compresslab.density.intervals import verdict
from compresslab.density.robustness import flips
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Alternative, Comparison, Density, ItemScores, TextOverlap

SHARED_WORDS: tuple[Literal[13, 8], ...] = (13, 8)
Assessed = dict[str, tuple[Density, list[Comparison]]]


def leave_out_overlaps(
    assessed: Assessed, variants: Sequence[Measured], overlaps: Sequence[TextOverlap], config: DensityConfig
) -> Assessed:
    """The densities and comparisons of a study, with what they are without the items that overlap.

    Comparisons that overlapping items could have decided get a row of robustness for items that share 13 words, and one for 8 words. A row
    that turns the verdict round makes it fragile.

    Args:
        assessed: of `assess`, by variant. variants: what it was computed from. config: with which.
    """
    by_name = {variant.name: variant for variant in variants}
    result: Assessed = {}
    for name, (density, comparisons) in assessed.items():
        variant = by_name[name]
        near = [by_name[other] for other in dict.fromkeys((name, variant.parent, variant.root)) if other in by_name]
        replicates = [other for one in near for group in one.replicates.values() for other in group]
        relatives = [*near, *(by_name[other] for other in dict.fromkeys(replicates) if by_name[other] not in near)]
        rows: dict[str, list[Alternative]] = {}
        for words in SHARED_WORDS:
            left_out = _overlapping(overlaps, relatives, words)
            if not left_out:
                continue
            again = _again(relatives, left_out, config)
            if words == SHARED_WORDS[0] and name in again:
                density = density.model_copy(update={"without_overlap": again[name][0].params})
            count = sum(map(len, left_out.values()))
            setting = f"without {count:,} {'item' if count == 1 else 'items'} that {'shares' if count == 1 else 'share'} {words} words"
            found = {comparison.against: comparison for comparison in again[name][1]} if name in again else {}
            for comparison in comparisons:
                row = _row(setting, comparison, found.get(comparison.against))
                rows.setdefault(comparison.against, []).extend([row] if row else [])
        result[name] = density, [_with_rows(comparison, rows.get(comparison.against, [])) for comparison in comparisons]
    return result


def _overlapping(overlaps: Sequence[TextOverlap], variants: Sequence[Measured], words: Literal[13, 8]) -> dict[str, set[str]]:
    """The items, by task, that overlap with a text behind any of the variants, if any of them answered them."""
    names = {variant.name for variant in variants}
    found: dict[str, set[str]] = {}
    for overlap in (overlap for overlap in overlaps if names & set(overlap.variants)):
        for task in overlap.tasks:
            items = task.words_13 if words == 13 else task.words_8
            if items and any(task.task in variant.items for variant in variants):
                found.setdefault(task.task, set()).update(items)
    return found


def _again(variants: Sequence[Measured], left_out: Mapping[str, set[str]], config: DensityConfig) -> Assessed:
    """Densities and comparisons without some items; empty if no items are left."""
    reduced = [_without(variant, left_out) for variant in variants]
    return assess(reduced, config, []) if all(variant.items for variant in reduced) else {}


def _without(variant: Measured, left_out: Mapping[str, set[str]]) -> Measured:
    kept = {task: _rows_without(items, left_out.get(task, set())) for task, items in variant.items.items()}
    return variant.model_copy(update={"items": {task: items for task, items in kept.items() if items.item}})


def _rows_without(scores: ItemScores, left_out: set[str]) -> ItemScores:
    kept = [index for index, item in enumerate(scores.item) if item not in left_out]
    columns = {name: value for name, value in scores if isinstance(value, list)}
    return scores.model_copy(update={name: [column[index] for index in kept] for name, column in columns.items()})


def _row(setting: str, comparison: Comparison, again: Comparison | None) -> Alternative | None:
    """The row of robustness; `None` if the comparison has no ratio that could change."""
    ratio, _ = comparison.headline
    if ratio is None:
        return None
    without = None if again is None else again.headline[0]
    if without is None:
        reason = "too few items are left"
        return Alternative(choice="overlap", setting=setting, ratio=None, verdict="inconclusive", reason=reason)
    turned = flips(verdict(ratio), ratio.value, without)
    return Alternative(choice="overlap", setting=setting, ratio=without, verdict=verdict(without), flips=turned)


def _with_rows(comparison: Comparison, rows: Sequence[Alternative]) -> Comparison:
    fragile = comparison.fragile or (comparison.headline[1] != "inconclusive" and any(row.flips for row in rows))
    return comparison.model_copy(update={"robustness": [*comparison.robustness, *rows], "fragile": fragile})
